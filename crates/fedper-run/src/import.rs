//! Weights that were made elsewhere: what of them fits a network here.

use fedper_core::params::{Layout, Params, ParamsError, Spec};

/// A file's parameters held against a network's.
#[derive(Debug)]
pub struct Fit {
    /// Those that the network has too, by name and shape, in the network's order.
    pub taken: Params,
    /// Those of the network that the file lacks, or has in another shape: the file's shape then. These start at random.
    pub missing: Vec<(Spec, Option<Vec<usize>>)>,
    /// Those of the file that the network does not have.
    pub unknown: Vec<String>,
    /// What stood before every name in the file, such as `module.` of PyTorch's `DataParallel`.
    pub prefix: String,
}

/// Matches by name and shape. Where no name is known as it is, a prefix that all of them share is left out.
///
/// # Errors
/// [`ParamsError`] if two names are the same without their prefix.
pub fn fit(found: &Params, network: &Layout) -> Result<Fit, ParamsError> {
    let prefix = prefix(found.layout(), network);
    let inner = |spec: &Spec| spec.name[prefix.len()..].to_owned();
    let (mut specs, mut values, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for spec in network.specs() {
        let name = format!("{prefix}{}", spec.name);
        match found.layout().position(&name) {
            Some(i) if found.layout().specs()[i].shape == spec.shape => {
                specs.push(spec.clone());
                values.extend_from_slice(found.at(i));
            }
            other => missing.push((spec.clone(), other.map(|i| found.layout().specs()[i].shape.clone()))),
        }
    }
    let unknown = found.layout().specs().iter().map(inner).filter(|name| network.position(name).is_none());
    Ok(Fit {
        taken: Params::from_values(Layout::new(specs)?, values)?,
        missing,
        unknown: unknown.collect(),
        prefix: prefix.to_owned(),
    })
}

/// The dotted components that every name begins with, as many as it takes for one name to be known.
fn prefix<'a>(found: &'a Layout, network: &Layout) -> &'a str {
    let Some(first) = found.specs().first().map(|spec| spec.name.as_str()) else { return "" };
    let ends = std::iter::once(0).chain(first.match_indices('.').map(|(at, _)| at + 1));
    ends.map(|end| &first[..end])
        .take_while(|prefix| found.specs().iter().all(|spec| spec.name.starts_with(prefix)))
        .find(|prefix| {
            found.specs().iter().any(|spec| network.position(&spec.name[prefix.len()..]).is_some())
        })
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(specs: &[(&str, &[usize])]) -> Params {
        let specs = specs.iter().map(|(name, shape)| Spec::trainable(*name, shape.to_vec())).collect();
        let layout = Layout::new(specs).unwrap();
        let values = (0..layout.numel()).map(|i| i as f32).collect();
        Params::from_values(layout, values).unwrap()
    }

    fn network() -> Params {
        params(&[("conv.weight", &[2, 1]), ("conv.bias", &[2]), ("fc.weight", &[3, 2])])
    }

    #[test]
    fn what_fits_is_taken_and_the_rest_is_named() {
        let file =
            params(&[("fc.weight", &[5, 2]), ("conv.bias", &[2]), ("head", &[1]), ("conv.weight", &[2, 1])]);
        let fit = fit(&file, network().layout()).unwrap();
        let names: Vec<&str> = fit.taken.layout().specs().iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["conv.weight", "conv.bias"]);
        assert_eq!(fit.taken.values(), [13.0, 14.0, 10.0, 11.0]);
        assert_eq!(fit.missing, [(Spec::trainable("fc.weight", [3, 2]), Some(vec![5, 2]))]);
        assert_eq!(fit.unknown, ["head"]);
        assert_eq!(fit.prefix, "");
    }

    #[test]
    fn a_prefix_of_all_names_is_left_out() {
        let file = params(&[("module.net.conv.bias", &[2]), ("module.net.extra", &[1])]);
        let fit = fit(&file, network().layout()).unwrap();
        assert_eq!((fit.prefix.as_str(), fit.taken.layout().len()), ("module.net.", 1));
        assert_eq!(fit.unknown, ["extra"]);
        assert_eq!(fit.missing.len(), 2);
    }

    #[test]
    fn a_prefix_of_some_names_stays() {
        let file = params(&[("module.conv.bias", &[2]), ("other.conv.bias", &[2])]);
        let fit = fit(&file, network().layout()).unwrap();
        assert!(fit.taken.layout().is_empty());
        assert_eq!(fit.unknown, ["module.conv.bias", "other.conv.bias"]);
    }

    #[test]
    fn an_empty_file_fits_nothing() {
        assert!(fit(&params(&[]), network().layout()).unwrap().taken.layout().is_empty());
    }
}
