//! `fedper data make`.

use std::path::PathBuf;

use fedper_data::{MakeOptions, make_flickr_aes};

use super::photos::Counter;
use crate::error::Error;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Made pictures and ratings in FLICKR-AES's form; users in pairs of opposite tastes
    #[command(after_help = EXAMPLES)]
    FlickrAes(FlickrAes),
}

const EXAMPLES: &str = "\
Neither the pictures nor the ratings are real, and every run on them says so. Each user rates 80 to 160 pictures.

Examples:
  fedper data make flickr-aes made
  fedper run --dataset flickr-aes --data-dir made --image-size 32 --clients 12 --personal-layers 4 --batch-norm local \\
      --batch-size 10 --drop-last --lr 0.05 --momentum 0.9 --rounds 25 --algorithm fedper,fedavg";

#[derive(clap::Args)]
pub(super) struct FlickrAes {
    /// Folder for the set; must be new or empty
    dir: PathBuf,
    /// Number of users
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    users: usize,
    /// Number of pictures
    #[arg(long, value_name = "COUNT", default_value_t = 400)]
    photos: usize,
    /// Columns of each picture
    #[arg(long, value_name = "PIXELS", default_value_t = 320)]
    width: u32,
    /// Rows of each picture
    #[arg(long, value_name = "PIXELS", default_value_t = 240)]
    height: u32,
    /// Where all randomness is derived from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

pub(super) fn main(command: &Command) -> Result<(), Error> {
    let Command::FlickrAes(args) = command;
    let &FlickrAes { ref dir, users, photos, width, height, seed } = args;
    let options = MakeOptions { users, photos, width, height, seed };
    let mut counter = Counter::new("pictures drawn", false);
    let ratings = make_flickr_aes(dir, &options, &mut |done| counter.show(done, Some(photos)));
    drop(counter);
    super::print(&format!(
        "{}: {photos} made pictures of {width}x{height} and {} made ratings by {users} users, in the form of FLICKR-AES\n",
        dir.display(),
        ratings?
    ))
}
