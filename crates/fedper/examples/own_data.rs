//! Samples of one's own, dealt by shards of one's own: `cargo run --release --example own_data`

use fedper::prelude::*;

const CLASSES: [&str; 4] = ["top", "bottom", "left", "right"];

/// An image of 12x12 grey pixels with one bright half, and something of a pattern that differs from sample to sample.
fn image(class: u16, sample: usize) -> Vec<u8> {
    let bright = |row: usize, column: usize| match class {
        0 => row < 6,
        1 => row >= 6,
        2 => column < 6,
        _ => column >= 6,
    };
    let noise = |row: usize, column: usize| (row * 31 + column * 17 + sample * 101) % 97;
    let pixel = |at: usize| (noise(at / 12, at % 12) + if bright(at / 12, at % 12) { 120 } else { 30 }) as u8;
    (0..144).map(pixel).collect()
}

fn main() -> Result<(), Error> {
    let labels: Vec<u16> = (0..320).map(|sample| sample % 4).collect();
    let pixels = labels.iter().enumerate().flat_map(|(sample, &class)| image(class, sample)).collect();
    let data = Dataset::from_memory("halves", &CLASSES, [12, 12, 1], pixels, labels.clone())?;

    // Eight devices of forty samples. Each knows two of the classes, and tests on every fourth of its samples.
    let shard = |device: u32| {
        let own: Vec<u32> = (0..320)
            .filter(|&sample| {
                u32::from(labels[sample as usize] / 2) == device % 2 && sample / 4 % 4 == device / 2
            })
            .collect();
        let (test, train) = own.into_iter().partition(|sample| sample / 16 % 4 == 0);
        Shard { train, test }
    };
    let run = Experiment::builder()
        .data(data)
        .shards((0..8).map(shard).collect())
        .model("mlp")
        .algorithm(&["fedper", "fedavg", "local"])
        .rounds(8)
        .run()?;

    println!("device   fedper   fedavg    local");
    for device in 0..8 {
        let accuracy = |method| run.device(device).by(method).map_or(f64::NAN, |test| 100.0 * test.accuracy);
        println!(
            "{device:>6} {:>7.1}% {:>7.1}% {:>7.1}%",
            accuracy("fedper"),
            accuracy("fedavg"),
            accuracy("local")
        );
    }
    assert!(run.accuracy("fedper") > Some(0.7));
    Ok(())
}
