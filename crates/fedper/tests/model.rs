//! `fedper model`: what a network is, and weights in and out.

mod common;

use std::path::Path;

use common::{fedper, stderr, stdout, text};
use fedper_core::params::{Layout, Params, Spec};
use fedper_nn::weights::{read_safetensors, write_safetensors};

#[test]
fn the_summary_of_a_network_tells_what_is_sent() {
    let output = fedper(&["model", "summary", "--model", "cnn", "--personal-layers", "1"]).output().unwrap();
    let printed = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    // fc: 512 x 10 + 10 parameters personal; the base is 582 026 - 5 130 values of 4 bytes.
    for expected in ["32x12x12", "64x4x4", "5 130", "personal", "576 896", "2.3 MB"] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let output = fedper(&["model", "summary", "--input", "3x1x1", "--model", "cnn"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
}

/// The network under `name` with so many classes, as a file.
fn exported(dir: &Path, name: &str, classes: &str) -> std::path::PathBuf {
    let out = dir.join(format!("{name}-{classes}.safetensors"));
    let args = ["model", "export", "--model", name, "--classes", classes, "--seed", "9", "--out", text(&out)];
    let output = fedper(&args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    out
}

/// The same values under other names.
fn renamed(file: &Path, out: &Path, name: impl Fn(&str) -> String) {
    let params = read_safetensors(&std::fs::read(file).unwrap()).unwrap();
    let specs = params.iter().map(|(spec, _)| Spec { name: name(&spec.name), ..spec.clone() }).collect();
    let params = Params::from_values(Layout::new(specs).unwrap(), params.values().to_vec()).unwrap();
    std::fs::write(out, write_safetensors(&params).unwrap()).unwrap();
}

#[test]
fn weights_for_other_classes_are_imported_without_their_classifier() {
    let dir = tempfile::tempdir().unwrap();
    let five = exported(dir.path(), "cnn", "5");
    let wrapped = dir.path().join("wrapped.safetensors");
    renamed(&five, &wrapped, |name| format!("module.{name}"));
    let import = |file: &Path, out: &Path| {
        fedper(&["model", "import", text(file), "--model", "cnn", "--out", text(out)]).output().unwrap()
    };

    let start = dir.path().join("start.safetensors");
    let output = import(&wrapped, &start);
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    for expected in [
        "taken: 6 of 8 parameters, 576 896 values (without `module.` before their names)",
        "starts as without it: fc.weight (10x512 here, 5x512 in the file)",
        "starts as without it: fc.bias (10 here, 5 in the file)",
        "--init",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let of = |path: &Path| read_safetensors(&std::fs::read(path).unwrap()).unwrap();
    let (given, taken) = (of(&five), of(&start));
    assert_eq!(taken.layout().len(), 6);
    for (spec, values) in taken.iter() {
        assert_eq!(given.get(&spec.name), Some(values), "{}", spec.name);
    }
    assert!(stderr(&import(&wrapped, &start)).contains("exists"));

    // A run starts from it; from the file as it was, it does not, and says how it would.
    let run = |init: &Path| {
        let out = dir.path().join("run");
        let args = ["--clients", "2", "--rounds", "1", "--samples-per-client", "10", "--algorithm", "fedper"];
        fedper(&["run", "--model", "cnn", "--init", text(init), "--out", text(&out)])
            .args(args)
            .output()
            .unwrap()
    };
    let refused = run(&five);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("fedper model import"), "{}", stderr(&refused));
    let output = run(&start);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn weights_that_do_not_fit_at_all_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let cnn = exported(dir.path(), "cnn", "10");
    let strange = dir.path().join("strange.safetensors");
    renamed(&cnn, &strange, |name| format!("encoder_{name}"));
    let cut = dir.path().join("cut.safetensors");
    std::fs::write(&cut, &std::fs::read(&cnn).unwrap()[..5000]).unwrap();
    let pickle = dir.path().join("cnn.pth");
    std::fs::write(&pickle, b"PK\x03\x04 and what torch.save writes").unwrap();
    let nan = dir.path().join("nan.safetensors");
    let bias = Layout::new(vec![Spec::trainable("fc.bias", [10])]).unwrap();
    let params = Params::from_values(bias, vec![f32::NAN; 10]).unwrap();
    std::fs::write(&nan, write_safetensors(&params).unwrap()).unwrap();
    for (file, expected) in [
        (strange.as_path(), "no parameter is one of cnn's"),
        (&cut, "not a safetensors file"),
        (&pickle, "safetensors.torch.save_file"),
        (&nan, "`fc.bias` holds a value that is not finite"),
        (Path::new("/nowhere/w.safetensors"), "cannot read /nowhere/w.safetensors"),
    ] {
        let out = dir.path().join("out.safetensors");
        let args = ["model", "import", text(file), "--model", "cnn", "--out", text(&out)];
        let output = fedper(&args).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{expected}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!out.exists());
    }
}
