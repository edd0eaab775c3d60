//! A network of one's own, written as blocks: `cargo run --release --example own_network`

use fedper::prelude::*;

/// A small CNN for grey images of 28x28 pixels. A block is base or personal as a whole, and its parameters have these names.
fn network(classes: usize) -> Result<Architecture, Error> {
    let blocks = vec![
        Block::new("conv1", vec![Op::conv("conv1", [1, 8], 5), Op::Relu, Op::max_pool(4)]),
        Block::new("conv2", vec![Op::conv("conv2", [8, 16], 3), Op::Relu, Op::GlobalAvgPool, Op::Flatten]),
        Block::new("fc", vec![Op::linear("fc", 16, classes)]),
    ];
    Ok(Architecture::from_blocks(
        "tiny-cnn",
        InputShape { channels: 1, height: 28, width: 28 },
        classes,
        blocks,
    )?)
}

fn main() -> Result<(), Error> {
    println!("K_P  personal values  bytes a round  accuracy");
    // The embedded dataset has ten classes; each device gets two of them.
    for k_p in 0..=3 {
        let run = Experiment::builder()
            .network(network(10)?)
            .algorithm(&["fedper"])
            .personal_layers(k_p)
            .partition(Scheme::Classes { per_device: 2 })
            .set("samples_per_client", "40")?
            .clients(10)
            .local_epochs(2)
            .rounds(4)
            .run()?;
        let kept = run.personal("fedper", 0)?.values().len();
        let round = &run.rounds()[0];
        let accuracy = run.accuracy("fedper").unwrap_or(0.0);
        println!("{k_p:>3} {kept:>16} {:>14} {:>8.1}%", round.bytes_down + round.bytes_up, 100.0 * accuracy);
        assert_eq!(kept + run.base("fedper")?.values().len(), run.experiment().layout.numel());
        assert!(k_p == 0 || accuracy > 0.4, "{accuracy}");
    }
    Ok(())
}
