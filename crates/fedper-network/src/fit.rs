//! Whether a device's images fit a federation: they have the shape of the others', and the same classes where a layer
//! travels that has a place for each class.
//!
//! A base is averaged value by value. A device whose second class is another device's first would change what the layer
//! has learned of both, and nothing would show it. Where every algorithm keeps that layer on the device, each device has
//! classes of its own, as many as it likes.

use fedper_flower::records::Values;

use fedper_run::experiment::Experiment;

/// In a `query`: the classes that all devices must have, if they must; in the answer: those of the device.
const CLASSES: &str = "fedper-classes";
/// Height, width and channels of the images, in both.
const SHAPE: &str = "fedper-image-shape";

/// What images are of, and which shape they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Images {
    pub(super) classes: Vec<String>,
    /// Height, width and channels.
    pub(super) shape: [usize; 3],
}

impl Images {
    /// Those of an experiment.
    pub(super) fn of(experiment: &Experiment) -> Self {
        let images = &experiment.dataset.images;
        Self {
            classes: experiment.dataset.classes.clone(),
            shape: [images.height, images.width, images.channels],
        }
    }

    /// As a device tells of its own.
    pub(super) fn write(&self, config: &mut Values) {
        config.set_texts(CLASSES, self.classes.clone());
        config.set_ints(SHAPE, self.shape.map(|size| i64::try_from(size).unwrap_or(i64::MAX)).to_vec());
    }

    /// What a device tells; `None` from those that do not.
    pub(super) fn read(config: &Values) -> Option<Self> {
        Some(Self { classes: config.texts(CLASSES)?.to_vec(), shape: shape(config)? })
    }
}

/// What a federation asks of its devices' images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The classes, by label; `None` if each device has its own, or they are not known yet.
    pub(super) classes: Option<Vec<String>>,
    /// Height, width and channels.
    pub(super) shape: Option<[usize; 3]>,
}

impl Wanted {
    /// As a server tells it.
    pub(super) fn write(&self, config: &mut Values) {
        if let Some(classes) = &self.classes {
            config.set_texts(CLASSES, classes.clone());
        }
        if let Some(shape) = self.shape {
            config.set_ints(SHAPE, shape.map(|size| size as i64).to_vec());
        }
    }

    /// What a server tells; nothing from those that do not.
    pub(super) fn read(config: &Values) -> Self {
        Self { classes: config.texts(CLASSES).map(<[String]>::to_vec), shape: shape(config) }
    }

    /// Checks a device's images.
    ///
    /// # Errors
    /// In words that make sense on the device and on the server: what differs, and what to do.
    pub(super) fn check(&self, images: &Images) -> Result<(), String> {
        if let Some(wanted) = self.shape
            && wanted != images.shape
        {
            return Err(other_shape(images.shape, wanted));
        }
        match &self.classes {
            Some(wanted) if *wanted != images.classes => Err(other_classes(&images.classes, wanted)),
            _ => Ok(()),
        }
    }
}

fn shape(config: &Values) -> Option<[usize; 3]> {
    let sizes: Option<Vec<usize>> =
        config.ints(SHAPE)?.into_iter().map(|size| usize::try_from(size).ok()).collect();
    sizes?.try_into().ok()
}

fn other_shape(ours: [usize; 3], wanted: [usize; 3]) -> String {
    let say = |[height, width, channels]: [usize; 3]| {
        let colour = match channels {
            1 => "grey".to_owned(),
            3 => "in colour".to_owned(),
            n => format!("of {n} channels"),
        };
        format!("{width}x{height} {colour}")
    };
    let mut advice = Vec::new();
    if ours[..2] != wanted[..2] {
        advice.push(
            "set image_size in the server's configuration, and all images are resized to it".to_owned(),
        );
    }
    if ours[2] != wanted[2] {
        let to = if wanted[2] == 1 { "grey" } else { "colour (RGB)" };
        advice
            .push(format!("convert the device's images to {to}, or the few that the server has to its kind"));
    }
    format!(
        "this device's images are {}, the federation's are {}: {}",
        say(ours),
        say(wanted),
        advice.join("; ")
    )
}

fn other_classes(ours: &[String], wanted: &[String]) -> String {
    let advice = "an algorithm that runs here sends the last layer, which has a place for each class: name the class \
                  folders as the others do, or let every algorithm keep the last layer on the device";
    let found = if sorted(ours) == sorted(wanted) {
        "this device's classes are the federation's in another order".to_owned()
    } else if ours.len().max(wanted.len()) <= 12 {
        format!("this device's classes are {}, the federation's are {}", list(ours), list(wanted))
    } else {
        let without = |all: &[String], others: &[String]| -> Vec<String> {
            all.iter().filter(|class| !others.contains(class)).cloned().collect()
        };
        format!(
            "of this device's {} classes and the federation's {}, only the device has {}, only the others have {}",
            ours.len(),
            wanted.len(),
            list(&without(ours, wanted)),
            list(&without(wanted, ours))
        )
    };
    format!("{found}; {advice}")
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort();
    names
}

/// Names that may come from anywhere, on one line.
pub(super) fn list(names: &[String]) -> String {
    let more = if names.len() > 12 { ", …" } else { "" };
    let names: Vec<String> = names.iter().take(12).map(|name| name.escape_debug().to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") + more }
}

/// Whether an algorithm of the experiment sends a parameter whose shape depends on the number of classes.
pub(super) fn classes_travel(experiment: &Experiment) -> bool {
    let Experiment { config, architecture, layout, .. } = experiment;
    let more = config.architecture(architecture.input, architecture.classes + 1);
    // A network that cannot be built so is none that devices could have in common.
    let Ok(more) = more else { return true };
    let more = more.layout();
    let names: Vec<&str> = layout
        .specs()
        .iter()
        .filter(|spec| more.specs().iter().all(|other| other.name != spec.name || other.shape != spec.shape))
        .map(|spec| spec.name.as_str())
        .collect();
    experiment.methods().iter().any(|strategy| {
        let parts = experiment.parts(&**strategy);
        // Whatever a parameter of another slot is called, it has the model's name behind its prefix.
        let sent = |name: &str| names.contains(&name.rsplit('/').next().unwrap_or(name));
        parts.up.layout().specs().iter().any(|spec| sent(&spec.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedper_run::config::Settings;

    fn images(classes: &[&str], shape: [usize; 3]) -> Images {
        Images { classes: classes.iter().map(ToString::to_string).collect(), shape }
    }

    #[test]
    fn other_classes_and_shapes_are_refused_with_what_to_do() {
        let wanted = |classes: Option<&[&str]>| Wanted {
            classes: classes.map(|classes| images(classes, [0; 3]).classes),
            shape: Some([28, 28, 1]),
        };
        let green_red = wanted(Some(&["green", "red"]));
        let check = |wanted: &Wanted, classes: &[&str], shape| wanted.check(&images(classes, shape));
        assert_eq!(check(&green_red, &["green", "red"], [28, 28, 1]), Ok(()));
        // Without a layer that travels, each has its own.
        assert_eq!(check(&wanted(None), &["blue", "green", "pink"], [28, 28, 1]), Ok(()));
        for (classes, shape, said) in [
            (
                &["blue", "green"][..],
                [28, 28, 1],
                "classes are blue, green, the federation's are green, red; ",
            ),
            (&["green"], [28, 28, 1], "classes are green, the"),
            (&["red", "green"], [28, 28, 1], "in another order"),
            (&["green", "red\n"], [28, 28, 1], r"green, red\n, the"),
            (
                &["green", "red"],
                [32, 32, 1],
                "are 32x32 grey, the federation's are 28x28 grey: set image_size",
            ),
            (&["green", "red"], [28, 28, 3], "are 28x28 in colour, the federation's are 28x28 grey: convert"),
        ] {
            let reason = check(&green_red, classes, shape).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
        let many: Vec<String> = (0..1000).map(|class| format!("class-{class}")).collect();
        let mut others = many.clone();
        others[7] = "else".into();
        let wanted = Wanted { classes: Some(many), shape: None };
        let reason = wanted.check(&Images { classes: others, shape: [1; 3] }).unwrap_err();
        assert!(reason.contains("only the device has else, only the others have class-7"), "{reason}");
    }

    #[test]
    fn what_is_told_arrives() {
        let (mut told, mut asked) = (Values::default(), Values::default());
        let own = images(&["a", "b"], [28, 14, 3]);
        own.write(&mut told);
        assert_eq!(Images::read(&told), Some(own));
        assert_eq!(Images::read(&Values::default()), None);
        for classes in [None, Some(vec!["a".to_owned()])] {
            let wanted = Wanted { classes, shape: Some([1, 2, 3]) };
            asked = Values::default();
            wanted.write(&mut asked);
            assert_eq!(Wanted::read(&asked), wanted);
        }
        asked.set_ints(SHAPE, vec![-1, 2, 3]);
        assert_eq!(Wanted::read(&asked).shape, None);
        assert_eq!(Wanted::read(&Values::default()), Wanted { classes: None, shape: None });
    }

    #[test]
    fn the_last_layer_travels_or_not() {
        let travels = |text: &str| {
            let settings: Settings = toml::from_str(text).unwrap();
            classes_travel(&Experiment::prepare(&settings).unwrap())
        };
        assert!(!travels("model = 'mlp'\npersonal_layers = 1\nalgorithm = ['fedper', 'local']"));
        assert!(travels("model = 'mlp'\npersonal_layers = 1\nalgorithm = ['fedper', 'fedavg']"));
        assert!(travels("model = 'mlp'\npersonal_layers = 0\nalgorithm = ['fedper']"));
        assert!(travels("model = 'cnn'\npersonal_pattern = ['fc.weight']\nalgorithm = ['fedper']"));
        assert!(!travels("model = 'cnn'\npersonal_pattern = ['fc.*']\nalgorithm = ['fedper']"));
        assert!(!travels("model = 'mobilenet_v1'\npersonal_layers = 1\nalgorithm = ['fedper']"));
    }
}
