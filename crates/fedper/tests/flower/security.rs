//! TLS and node authentication: who is not known is refused.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use fedper_flower::error::FlowerError;
use fedper_flower::identity::Identity;
use fedper_flower::proto;
use fedper_flower::transport::{Call, Http, Transport};

use crate::common::fedper;
use crate::support::{Place, free_port, venv};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}");
    text
}

/// A certificate authority, and a certificate of it for 127.0.0.1, as docs/deploy.md makes them.
fn certificates(dir: &Path, name: &str) {
    let openssl = |args: &str| {
        let args: Vec<&str> = args.split_whitespace().collect();
        run(Command::new("openssl").args(args).current_dir(dir));
    };
    openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -keyout {name}-ca.key -out {name}-ca.pem \
         -subj /CN=fedper-{name}"
    ));
    openssl(&format!(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout {name}.key -out {name}.csr -subj /CN=superlink"
    ));
    std::fs::write(dir.join("san.txt"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    openssl(&format!(
        "x509 -req -in {name}.csr -CA {name}-ca.pem -CAkey {name}-ca.key -CAcreateserial -days 365 -extfile san.txt -out {name}.pem"
    ));
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn a_wrong_authority_key_or_signature_is_refused() {
    let place = Place::new(venv());
    let port = free_port();
    certificates(place.dir.path(), "good");
    certificates(place.dir.path(), "other");
    let tls = ["--ssl-certfile", "good.pem", "--ssl-keyfile", "good.key", "--ssl-ca-certfile", "good-ca.pem"];
    let mut args = tls.to_vec();
    args.extend(["--enable-supernode-auth", "--isolation", "process"]);
    let _superlink = place.superlink(port, &args);
    let url = format!("https://127.0.0.1:{port}");

    // The operator registers two devices' keys.
    std::fs::create_dir_all(place.path("flwr")).unwrap();
    let ca = place.text("good-ca.pem");
    std::fs::write(
        place.path("flwr/config.toml"),
        format!("[superlink]\ndefault = \"here\"\n\n[superlink.here]\naddress = \"127.0.0.1:{port}\"\nroot-certificates = \"{ca}\"\n"),
    )
    .unwrap();
    for device in 0..2 {
        let key = place.text(&format!("device-{device}.pem"));
        let public = run(&mut fedper(&["key", &key]));
        assert_eq!(public, run(&mut fedper(&["key", &key])), "shown, not made anew");
        std::fs::write(place.path(&format!("device-{device}.pub")), public).unwrap();
        run(place.flower("flwr").args(["supernode", "register", &format!("device-{device}.pub")]));
    }

    // A federation of those two comes to its end.
    let config = "model = 'mlp'\nclients = 2\nclasses_per_client = 2\nsamples_per_client = 20\nbatch_size = 10\n\
                  algorithm = ['fedper']\nrounds = 2\n";
    let _clients = [0, 1].map(|device| {
        let (key, device) = (place.text(&format!("device-{device}.pem")), device.to_string());
        place.client(&format!("client-{device}"), &url, &["--ca", &ca, "--key", &key, "--device", &device])
    });
    let mut server = place.server("deployed", &url, config, &["--ca", &ca]);
    place.expect_success("deployed", &mut server, Duration::from_secs(120));

    // A wrong authority, and none.
    let other = place.text("other-ca.pem");
    for args in [&["--ca", &other][..], &[]] {
        let mut client = place.client("wrong-ca", &url, args);
        assert!(!client.wait(Duration::from_secs(30)).success());
    }
    let log = place.log("wrong-ca");
    assert_eq!(log.matches("certificate is not accepted").count(), 2, "{log}");

    // A key that is not registered.
    let mut stranger = place.client("stranger", &url, &["--ca", &ca]);
    assert!(!stranger.wait(Duration::from_secs(30)).success());
    assert!(place.log("stranger").contains("not registered"), "{}", place.log("stranger"));

    // Signatures of a registered key.
    let pem = std::fs::read_to_string(place.path("device-0.pem")).unwrap();
    let (known, unknown) = (Identity::from_pem(&pem).unwrap(), Identity::generate().unwrap());
    let transport = Http::new(&url, Some(&std::fs::read(&ca).unwrap())).unwrap();
    let node_id = node_id(&place.log("client-0"));
    let call = |headers: &[(&'static str, String)]| {
        let request = proto::PullMessagesRequest { node: Some(proto::Node { node_id }) };
        let body = proto::encode(&request);
        transport.call(Call { path: "fleet/pull-messages", headers, body: &body }).unwrap().status
    };
    let now = SystemTime::now();
    let fresh = known.headers(now).to_vec();
    assert_eq!(call(&fresh), 200);
    let old = known.headers(now - Duration::from_secs(311)).to_vec();
    let future = known.headers(now + Duration::from_secs(30)).to_vec();
    let foreign = unknown.headers(now).to_vec();
    let mut forged = fresh.clone();
    forged[2].1 = foreign[2].1.clone();
    // A signature that was good for another time.
    let mut moved = known.headers(now - Duration::from_secs(20)).to_vec();
    moved[1].1 = fresh[1].1.clone();
    for (what, headers) in
        [("old", &old), ("future", &future), ("foreign", &foreign), ("forged", &forged), ("moved", &moved)]
    {
        assert_eq!(call(headers), 401, "{what}");
    }
    assert!(matches!(Http::new("ftp://x", None), Err(FlowerError::Key(_))));
}

fn node_id(log: &str) -> u64 {
    let line = log.lines().find_map(|line| line.strip_prefix("node ")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}
