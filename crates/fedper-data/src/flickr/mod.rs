//! FLICKR-AES (J. Ren, X. Shen, Z. Lin, R. Mech, D. J. Foran, *Personalized Image Aesthetics*, ICCV 2017): photographs
//! that users gave scores of 1 to 5. Each drawn user is a device, each score a class, as in the FedPer paper.

pub(crate) mod ratings;
mod users;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::catalogue::DatasetInfo;
use crate::decode::{Fit, Trouble};
use crate::photos::{PhotoCache, Slot};
use crate::{DataError, Dataset, DeviceFolder, Images, LeftOut, LoadOptions, locate};
use ratings::{Rating, Ratings};

/// The file of ratings.
pub const RATINGS: &str = "FLICKR-AES_image_labeled_by_each_worker.csv";
/// The folder of photos.
pub(crate) const PHOTOS: &str = "40K";
/// What the official archive of photos unpacks to.
const ARCHIVE: &str = "FLICKR-AES-001";
/// In a folder with this file is a set that was made by a program; it says how.
pub(crate) const MADE: &str = "MADE.txt";
/// The size that photos are resized to unless told otherwise: the paper's networks' own.
const SIZE: (usize, usize) = (224, 224);

/// Reads the ratings, draws users, and brings their photos into the cache; see [`RaterOptions`](crate::RaterOptions). `progress` is called with
/// how many photos are there and how many are asked for.
///
/// A photo that is missing or broken is left out. If that leaves a user with too few, the next user in the order of the
/// draw takes its place. Devices are sorted by their users' names, each one's samples in the order of the file.
pub(crate) fn load(
    info: &'static DatasetInfo,
    dir: Option<&Path>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Dataset, DataError> {
    let dir = locate::find(info, dir, RATINGS)?;
    let photos = photo_folder(info, &dir)?;
    let made = dir.join(MADE).is_file();
    let name = if made { format!("{} (made)", info.name) } else { info.name.into() };
    let ratings = ratings::read(&dir.join(RATINGS))?;
    let rules = &options.raters;
    let (order, users_left_out) = users::draw(&ratings, rules);
    let qualified = order.len();
    let mut left_out = LeftOut { repeated: ratings.repeated, users: users_left_out, ..LeftOut::default() };
    let refuse = |found: usize, left_out: &LeftOut| DataError::Partition {
        dataset: name.clone(),
        problem: format!(
            "{} users are asked for, and {found} of {} have {}{}",
            rules.users,
            ratings.users.len(),
            rules.rules(),
            left_out.example()
        ),
        advice: format!(
            "{}change --min-photos, --max-photos or --min-per-score",
            if found > 0 { format!("give --clients {found}, or ") } else { String::new() }
        ),
    };
    if rules.users > qualified {
        return Err(refuse(qualified, &left_out));
    }
    let (height, width) = options.image_size.unwrap_or(SIZE);
    let cache = PhotoCache::open(options.cache.as_deref(), &photos, Fit::Resize(height, width))?;
    let mut draw = Draw { ratings: &ratings, cache, slots: HashMap::new(), done: 0, total: 0 };
    draw.expect(&order[..rules.users]);
    let mut chosen: Vec<(&str, Vec<Rating>)> = Vec::new();
    for (at, user) in order.into_iter().enumerate() {
        if chosen.len() == rules.users {
            break;
        }
        if at >= rules.users {
            draw.expect(&[user]);
        }
        let usable = draw.usable(user, &mut left_out, progress)?;
        match rules.shortage(&usable) {
            None => chosen.push((user, usable)),
            Some(why) => left_out.users.push((user.into(), format!("{why} once unusable ones are left out"))),
        }
    }
    if chosen.len() < rules.users {
        return Err(refuse(chosen.len(), &left_out));
    }
    chosen.sort_unstable_by_key(|&(user, _)| user);

    let (mut slots, mut labels, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for (user, own) in &chosen {
        let start = slots.len() as u32;
        slots.extend(own.iter().filter_map(|rating| draw.slots[&rating.photo]));
        labels.extend(own.iter().map(|rating| u16::from(rating.score) - 1));
        devices.push(DeviceFolder { name: (*user).into(), train: start..slots.len() as u32, test: 0..0 });
    }
    if u32::try_from(labels.len()).is_err() {
        return Err(DataError::Ratings {
            path: dir.join(RATINGS),
            problem: "it holds too many ratings".into(),
        });
    }
    let drawn = format!("{} of the {qualified} users with {}", devices.len(), rules.rules());
    let made =
        if made { "made by `fedper data make`, neither photographs nor people's ratings; " } else { "" };
    Ok(Dataset {
        name,
        classes: (1..=ratings::SCORES).map(|score| score.to_string()).collect(),
        train_len: labels.len(),
        images: Images::stored(draw.cache.into_stored(slots, 3), labels),
        devices: Some(devices),
        note: Some(format!("{made}{drawn}{}", left_out.summary())),
        left_out,
    })
}

/// The folder of photos: beside the ratings, or where the official archive puts it.
fn photo_folder(info: &DatasetInfo, dir: &Path) -> Result<PathBuf, DataError> {
    let folders = [dir.join(PHOTOS), dir.join(ARCHIVE).join(PHOTOS)];
    folders.iter().find(|folder| folder.is_dir()).cloned().ok_or_else(|| DataError::NotFound {
        dataset: info.name,
        missing: format!("the folder {PHOTOS} of its photos"),
        looked: folders.each_ref().map(|folder| folder.display().to_string()).join(", "),
        advice: format!("unpack the photos so that {PHOTOS} lies beside {RATINGS}"),
    })
}

/// Users' photos on their way into the cache.
struct Draw<'a> {
    ratings: &'a Ratings,
    cache: PhotoCache,
    /// The slot of each photo that was asked for; `None` if it cannot be used.
    slots: HashMap<u32, Option<Slot>>,
    done: usize,
    total: usize,
}

impl Draw<'_> {
    /// Counts the photos of `users` among those to come.
    fn expect(&mut self, users: &[&str]) {
        let photos = users.iter().flat_map(|user| &self.ratings.users[*user]).map(|rating| rating.photo);
        let new: std::collections::HashSet<u32> =
            photos.filter(|photo| !self.slots.contains_key(photo)).collect();
        self.total += new.len();
    }

    /// The ratings of `user` whose photos can be used.
    fn usable(
        &mut self,
        user: &str,
        left_out: &mut LeftOut,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Rating>, DataError> {
        let own = &self.ratings.users[user];
        let new: Vec<u32> =
            own.iter().map(|rating| rating.photo).filter(|photo| !self.slots.contains_key(photo)).collect();
        let names: Vec<&str> =
            new.iter().map(|&photo| self.ratings.photos[photo as usize].as_str()).collect();
        let (done, total) = (&mut self.done, self.total);
        let mut decoded = |more: usize| {
            *done += more;
            progress(*done, total);
        };
        for (photo, slot) in new.iter().zip(self.cache.bring(&names, &mut decoded)?) {
            let name = &self.ratings.photos[*photo as usize];
            match &slot {
                Ok(_) => {}
                Err(Trouble::Missing) => left_out.missing.push(name.clone()),
                Err(Trouble::Broken(why)) => left_out.broken.push((name.clone(), why.clone())),
                Err(Trouble::Size(..)) => unreachable!("photos are resized"),
            }
            self.slots.insert(*photo, slot.ok());
        }
        Ok(own.iter().copied().filter(|rating| self.slots[&rating.photo].is_some()).collect())
    }
}
