//! fedper as a library: what a program brings along is as good as what is built in.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{assert_same, results};
use fedper::prelude::*;

const CLASSES: [&str; 3] = ["left", "right", "both"];

/// Images of 8x8 grey pixels with a bright left half, right half, or both.
fn data() -> Dataset {
    named("halves", 0)
}

fn named(name: &str, brighter: u8) -> Dataset {
    let labels: Vec<u16> = (0..96).map(|sample| sample % 3).collect();
    let pixel = |sample: usize, class: u16, at: usize| {
        let bright = class == 2 || (at % 8 < 4) == (class == 0);
        ((sample * 29 + at * 13) % 60) as u8 + brighter + if bright { 150 } else { 20 }
    };
    let image =
        |(sample, &class): (usize, &u16)| (0..64).map(move |at| pixel(sample, class, at)).collect::<Vec<_>>();
    let pixels = labels.iter().enumerate().flat_map(image).collect();
    Dataset::from_memory(name, &CLASSES, [8, 8, 1], pixels, labels).unwrap()
}

fn shards() -> Vec<Shard> {
    let shard = |device: u32| Shard {
        train: (24 * device..24 * device + 18).collect(),
        test: (24 * device + 18..24 * device + 24).collect(),
    };
    (0..4).map(shard).collect()
}

fn network() -> Architecture {
    let blocks = vec![
        Block::new(
            "conv",
            vec![Op::conv("conv", [1, 4], 3), Op::batch_norm("norm", 4), Op::Relu, Op::max_pool(2)],
        ),
        Block::new("hidden", vec![Op::Flatten, Op::linear("hidden", 64, 8), Op::Relu]),
        Block::new("fc", vec![Op::linear("fc", 8, 3)]),
    ];
    Architecture::from_blocks("tiny", InputShape { channels: 1, height: 8, width: 8 }, 3, blocks).unwrap()
}

fn experiment<'a>() -> Builder<'a> {
    Experiment::builder().data(data()).shards(shards()).network(network()).rounds(4).lr(0.05).batch_size(6)
}

fn refused(run: Result<Run, Error>, said: &str) {
    let error = run.err().expect(said);
    assert!(error.to_string().contains(said), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    assert_eq!(error.exit_code(), 2, "{error}");
}

/// FedAvg under another name.
struct Same(&'static str);

impl Strategy for Same {
    fn name(&self) -> &'static str {
        self.0
    }

    fn about(&self) -> About {
        FedAvg.about()
    }

    fn parts(&self, cut: &Split) -> Parts {
        FedAvg.parts(cut)
    }
}

/// FedPer with a memory on both sides: the server's counts rounds, a device's counts those in which it trained.
struct Remembers {
    step: f32,
}

const ROUNDS: Slot = Slot::new("rounds", Like::Values(1));
const TRAINED: Slot = Slot::new("before/", Like::Base).begins(Begin::Received).private();

impl Strategy for Remembers {
    fn name(&self) -> &'static str {
        "remembers"
    }

    fn about(&self) -> About {
        FedPer.about()
    }

    fn settings(&self) -> String {
        format!("step = {}", self.step)
    }

    fn parts(&self, cut: &Split) -> Parts {
        Parts::of(cut.clone()).remembering(ROUNDS).keeping(TRAINED)
    }

    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<Trained, LearnError> {
        // It begins half way between what it received and what it sent last.
        let before = round.own(own, TRAINED.prefix);
        let mut start = round.assemble(received, own);
        for (spec, values) in before.iter() {
            let at = start.layout().position(&spec.name).unwrap();
            start
                .at_mut(at)
                .iter_mut()
                .zip(values)
                .for_each(|(start, before)| *start = 0.5 * (*start + before));
        }
        device.load(&start)?;
        let metrics = device.train(&round.pass())?;
        let (base, personal) = round.cut(&device.params()?);
        round.answer(vec![("", base.clone())], vec![("", personal), (TRAINED.prefix, base)], metrics)
    }

    fn server(&self, state: &Shared, mut folded: Folded, round: &ServerRound) -> Shared {
        let mut rounds = round.state(state, ROUNDS.prefix);
        rounds.values_mut()[0] += self.step;
        let base = folded.take("").unwrap_or_else(|| round.state(state, ""));
        round.parts.state(vec![("", base), (ROUNDS.prefix, rounds)])
    }

    fn takes_momentum(&self) -> bool {
        false
    }
}

#[test]
fn an_own_method_that_does_as_fedavg_is_fedavg() {
    let run = experiment().algorithm(&["fedavg"]).method(Same("same")).run().unwrap();
    assert_eq!(run.experiment().config.algorithm, ["fedavg", "same"]);
    assert_eq!(run.base("same").unwrap(), run.base("fedavg").unwrap());
    let timeless = |method| -> Vec<RoundRecord> {
        let plain =
            |round: &RoundRecord| RoundRecord { seconds: 0.0, algorithm: String::new(), ..round.clone() };
        run.rounds_of(method).map(plain).collect()
    };
    assert_eq!(timeless("same"), timeless("fedavg"));
    assert_eq!(run.network("same", 2).unwrap(), run.network("fedavg", 2).unwrap());
    assert_eq!(run.device(1).accuracy(), Some(run.device(1).by("same").unwrap().accuracy));
    assert!(run.personal("same", 0).unwrap().values().is_empty());
}

#[test]
fn own_shards_and_an_own_network_are_used() {
    let run = experiment().algorithm(&["fedper", "local"]).rounds(12).personal_layers(2).run().unwrap();
    let Experiment { partition, architecture, cut, config, .. } = run.experiment();
    assert_eq!(partition.shards().map(|shard| shard.into_owned()).collect::<Vec<_>>(), shards());
    assert_eq!((architecture, config.clients), (&network(), 4));
    let personal: Vec<&str> = cut.personal().specs().iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(personal, ["hidden.weight", "hidden.bias", "fc.weight", "fc.bias"]);
    assert!(run.accuracy("fedper") > Some(0.8), "{:?}", run.accuracy("fedper"));
    // Six test samples each.
    assert_eq!(run.device(3).by("local").unwrap().samples, 6);
    assert!(run.device(4).accuracy().is_none());
    assert!(run.base("fedper").unwrap().get("conv.weight").is_some());
    assert_ne!(run.personal("fedper", 0).unwrap(), run.personal("fedper", 3).unwrap());
    let (network, own) = (run.network("fedper", 3).unwrap(), run.personal("fedper", 3).unwrap());
    assert_eq!(network.get("fc.weight"), own.get("fc.weight"));
    assert_eq!(network.layout(), &run.experiment().layout);
    for (result, said) in [
        (run.personal("fedavg", 0), "there is no method `fedavg` in the run: it has fedper, local"),
        (run.personal("fedper", 4), "there is no device 4: the run has 4, from 0 to 3"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), said);
    }
}

/// Sets the flag after a round.
struct Stops<'a>(u32, &'a AtomicBool);

impl Observer for Stops<'_> {
    fn round(&mut self, record: &RoundRecord) {
        if record.round == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_method_with_memory_survives_an_interruption_and_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    fn begin<'a>() -> Builder<'a> {
        experiment().algorithm(&["fedper"]).method(Remembers { step: 1.0 })
    }
    let whole = folder.path().join("whole");
    let run = begin().workers(1).run_in(&whole).unwrap();
    assert_eq!(run.server("remembers").unwrap().unwrap().values(), [4.0]);
    assert!(run.personal("remembers", 0).unwrap().get("before/conv.weight").is_some());
    assert_eq!(run.experiment().config.momentum, 0.0, "one of its methods takes none");
    assert_eq!(run.directory(), Some(&*whole));

    let stopped = folder.path().join("stopped");
    for round in [1, 3] {
        let stop = AtomicBool::new(false);
        let mut stops = Stops(round, &stop);
        let error = begin().workers(4).stop(&stop).watch(&mut stops).run_in(&stopped).err().unwrap();
        assert!(error.to_string().contains("run the same program again"), "{error}");
        assert_eq!(error.exit_code(), 130);
    }
    let resumed = begin().workers(4).run_in(&stopped).unwrap();
    assert_same(&results(&whole), &results(&stopped));
    assert_eq!(resumed.network("remembers", 1).unwrap(), run.network("remembers", 1).unwrap());

    // What is done is read, and goes on where more rounds are asked for.
    assert_eq!(begin().run_in(&stopped).unwrap().rounds(), resumed.rounds());
    let longer = folder.path().join("longer");
    begin().rounds(6).run_in(&longer).unwrap();
    begin().rounds(6).run_in(&stopped).unwrap();
    assert_same(&results(&longer), &results(&stopped));
}

#[test]
fn a_run_does_not_go_on_with_other_things() {
    let folder = tempfile::tempdir().unwrap();
    fn begin<'a>() -> Builder<'a> {
        Experiment::builder().model("mlp").rounds(3).seed(5)
    }
    fn own<'a>() -> Builder<'a> {
        begin().data(data()).shards(shards()).method(Remembers { step: 1.0 })
    }
    let (done, half) = (folder.path().join("done"), folder.path().join("half"));
    own().run_in(&done).unwrap();
    let stop = AtomicBool::new(false);
    own().stop(&stop).watch(&mut Stops(1, &stop)).run_in(&half).err().unwrap();
    let mut other = shards();
    other[0].train.pop();
    for path in [&done, &half] {
        let with = || begin().data(data()).shards(shards());
        let brighter = || begin().data(named("halves", 1)).shards(shards()).method(Remembers { step: 1.0 });
        refused(brighter().run_in(path), "its samples were halves sha256:");
        refused(
            begin().data(data()).shards(other.clone()).method(Remembers { step: 1.0 }).run_in(path),
            "its shards were",
        );
        refused(
            with().method(Remembers { step: 2.0 }).run_in(path),
            "`remembers` has other slots or settings",
        );
        refused(
            with().method(Same("same")).run_in(path),
            "the method `remembers` is missing; the method `same` is new",
        );
        refused(own().seed(6).run_in(path), "seed is 6 here and 5 there");
    }
    // The command line says that it lacks something, in one line.
    for arguments in
        [["--config", half.join("config.toml").to_str().unwrap()], ["--resume", half.to_str().unwrap()]]
    {
        let output = common::fedper(&["run"]).args(arguments).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = common::stderr(&output);
        assert!(said.contains("samples, shards and the method `remembers` of its own"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let run = done.to_str().unwrap();
    let predict = ["predict", "--run", run, "--device", "0", "--algorithm", "remembers", "x.png"];
    let output = common::fedper(&predict).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = common::stderr(&output);
    assert!(said.contains("ask the program that began it for its devices' networks"), "{said}");
    assert!(own().run_in(&half).is_ok());
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("run");
    let run = |builder: Builder<'_>, said: &str| refused(builder.run_in(path), said);
    let shard = |train: &[u32], test: &[u32]| Shard { train: train.to_vec(), test: test.to_vec() };
    let data = || Experiment::builder().data(data()).model("mlp");
    run(data().shards(vec![]), "there is no device");
    run(data().shards(vec![shard(&[96], &[])]), "device 0 holds sample 96, and `halves` has 96");
    run(data().shards(vec![shard(&[1], &[1])]), "device 0 is to train and to be tested on sample 1");
    run(data().shards(vec![shard(&[], &[1])]), "device 0 has no sample to train on");
    run(data().shards(shards()).clients(5), "there are 4 shards");
    run(data().shards(shards()).partition(Scheme::Iid), "leave iid out");
    run(data().network(network()), "leave model out");
    run(
        Experiment::builder().network(network()),
        "takes images of 8x8x1, and those of `fashion-mnist-small` are 28x28x1",
    );
    run(data().method(Same("fedavg")), "there is a method `fedavg` already");
    run(data().method(Same("one")).method(Same("one")), "two of your methods are named `one`");
    run(data().method(Same("../one")), "cannot be named `../one`");
    run(data().algorithm(&["fedsomething"]), "there is no algorithm `fedsomething`");
    run(data().rounds(0), "rounds is 0");
    run(data().workers(0), "workers is 0");
    assert!(!path.exists());
    let error = data().set("lr", "quick").err().unwrap().to_string();
    assert_eq!(error, "lr: `quick` is not a number, such as 0.5");
}

#[test]
fn samples_without_a_test_split_are_split_and_an_observer_sees_each_round() {
    #[derive(Default)]
    struct Sees(Vec<String>);
    impl Observer for Sees {
        fn evaluated(&mut self, algorithm: &str, round: u32, devices: &[DeviceRecord]) {
            self.0.push(format!("{algorithm} {round}: {} devices", devices.len()));
        }
        fn base(&mut self, algorithm: &str, round: u32, state: &Params) {
            self.0.push(format!("{algorithm} {round}: {}", state.layout().specs().last().unwrap().name));
        }
        fn round(&mut self, record: &RoundRecord) {
            self.0.push(format!("{} {}", record.algorithm, record.round));
        }
    }
    let mut sees = Sees::default();
    let builder = Experiment::builder().data(data()).partition(Scheme::Dirichlet { alpha: 1.0 }).clients(3);
    let run = builder.model("mlp").method(Remembers { step: 1.0 }).rounds(2).watch(&mut sees).run().unwrap();
    assert_eq!(run.experiment().config.test_fraction, Some(0.2));
    assert_eq!(run.directory(), None);
    let seen = |round| {
        let about = ["3 devices", "rounds"].map(|what| format!("remembers {round}: {what}"));
        [about.to_vec(), vec![format!("remembers {round}")]].concat()
    };
    assert_eq!(sees.0, [seen(1), seen(2)].concat());
}
