//! Weights as safetensors: PyTorch's files in, PyTorch's output out, and our files in PyTorch's layout.

use fedper_core::params::{Kind, Params};
use fedper_nn::weights::{read_safetensors, write_safetensors};
use fedper_nn::{Architecture, Block, InputShape, Model, Network, Stem};

use crate::support::formula;
use crate::support::golden::{Golden, path};

fn pytorch_file(name: &str) -> Params {
    let path = path(&format!("pytorch-{name}.safetensors"));
    read_safetensors(&std::fs::read(path).unwrap()).unwrap()
}

/// Loads PyTorch's file for `arch` and compares the outputs, before and after writing it as our own.
fn gives_pytorchs_output(name: &str, arch: &Architecture) {
    let golden = Golden::open("interchange.safetensors");
    let InputShape { channels, height, width } = arch.input;
    let images = formula::images(&format!("interchange-{name}"), 5, height, width, channels);
    let params = pytorch_file(name);
    let written = read_safetensors(&write_safetensors(&params).unwrap()).unwrap();
    for params in [params, written] {
        let mut network = Network::new(arch, 5).unwrap();
        network.load(&params).unwrap();
        let distance = golden.distance("", name, network.logits(&images, 5).unwrap());
        println!("{name}: {distance:.1e}");
        assert!(distance <= 1e-5, "{name}: {distance:.1e}");
    }
}

#[test]
fn an_mlp_from_pytorch_gives_pytorchs_output() {
    let input = InputShape { channels: 1, height: 4, width: 4 };
    gives_pytorchs_output("mlp", &Architecture::new(Model::Mlp, Stem::Cifar, input, 10).unwrap());
}

#[test]
fn convolutions_and_batch_norms_from_pytorch_give_pytorchs_output() {
    let ops = super::layers::ops(Golden::open("interchange.safetensors").scalar("ops"));
    let input = InputShape { channels: 3, height: 6, width: 5 };
    let block = Block { name: "all".to_owned(), ops };
    gives_pytorchs_output("small", &Architecture::from_blocks("small", input, 4, vec![block]).unwrap());
}

#[test]
fn running_statistics_are_buffers_and_counters_are_left_out() {
    let params = pytorch_file("small");
    let buffers = params.layout().specs().iter().filter(|s| s.kind == Kind::Buffer).map(|s| s.name.as_str());
    let mut buffers: Vec<_> = buffers.collect();
    buffers.sort_unstable();
    assert_eq!(buffers, ["bn.running_mean", "bn.running_var", "stem.bn.running_mean", "stem.bn.running_var"]);
    assert_eq!(params.layout().len(), 14);
}
