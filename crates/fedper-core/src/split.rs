//! The cut of a network's parameters into base and personal, and the two types that keep them apart.
//!
//! [`Shared`] go to the server; [`Kept`] never leave their device. They are different types, and what is sent
//! over a network is made of the first alone (`ArrayRecord` of `fedper-flower`), so sending the second does not compile.

use std::sync::Arc;

use crate::params::{Kind, Layout, Params, ParamsError, Spec};

/// Parameters that may travel: the base, and whatever else a method sends.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared(Params);

impl Shared {
    /// Read access to names and values.
    pub fn params(&self) -> &Params {
        &self.0
    }

    pub(crate) fn new(params: Params) -> Self {
        Self(params)
    }

    pub(crate) fn into_params(self) -> Params {
        self.0
    }
}

/// Parameters that stay on the device: its personal layers, and whatever else a method keeps there. Nothing makes a message of
/// them.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept(Params);

impl Kept {
    /// Read access to names and values, for the device's own network and its own storage.
    pub fn params(&self) -> &Params {
        &self.0
    }

    pub(crate) fn new(params: Params) -> Self {
        Self(params)
    }

    pub(crate) fn into_params(self) -> Params {
        self.0
    }
}

/// A partition of a layout's parameters into base and personal.
///
/// `split.join(&base, &personal)` of what `split.cut(&params)` returned is `params` again.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    whole: Arc<Layout>,
    base: Side,
    personal: Side,
}

/// One side of the cut: its own layout, and where its parameters stand in the whole.
#[derive(Clone, Debug, PartialEq)]
struct Side {
    layout: Arc<Layout>,
    positions: Vec<usize>,
}

impl Side {
    fn new(whole: &Layout, takes: impl Fn(&Spec) -> bool) -> Self {
        let positions: Vec<usize> = (0..whole.len()).filter(|&i| takes(&whole.specs()[i])).collect();
        let specs = positions.iter().map(|&i| whole.specs()[i].clone()).collect();
        let layout = Layout::new(specs).expect("a part of a layout has no duplicates");
        Self { layout, positions }
    }

    fn take(&self, params: &Params) -> Params {
        let mut values = Vec::with_capacity(self.layout.numel());
        self.positions.iter().for_each(|&i| values.extend_from_slice(params.at(i)));
        Params::from_values(self.layout.clone(), values)
            .expect("a side's layout holds what its positions hold")
    }

    fn put(&self, part: &Params, whole: &mut Params) {
        for (own, &position) in self.positions.iter().enumerate() {
            whole.at_mut(position).copy_from_slice(part.at(own));
        }
    }
}

impl Split {
    /// The cut that makes personal what `personal` says.
    pub fn new(whole: &Arc<Layout>, personal: impl Fn(&Spec) -> bool) -> Self {
        Self {
            whole: whole.clone(),
            base: Side::new(whole, |spec| !personal(spec)),
            personal: Side::new(whole, &personal),
        }
    }

    /// Everything is averaged: federated averaging.
    pub fn all_base(whole: &Arc<Layout>) -> Self {
        Self::new(whole, |_| false)
    }

    /// Nothing is averaged: purely local training.
    pub fn all_personal(whole: &Arc<Layout>) -> Self {
        Self::new(whole, |_| true)
    }

    /// The cut that makes exactly `names` personal.
    ///
    /// # Errors
    /// [`ParamsError::Unknown`] for a name that the layout does not have.
    pub fn by_names<S: AsRef<str>>(whole: &Arc<Layout>, names: &[S]) -> Result<Self, ParamsError> {
        for name in names {
            if whole.position(name.as_ref()).is_none() {
                return Err(ParamsError::Unknown(name.as_ref().to_owned()));
            }
        }
        Ok(Self::new(whole, |spec| names.iter().any(|name| name.as_ref() == spec.name)))
    }

    /// The cut that makes personal every parameter whose name matches one of `patterns`; `*` stands for any characters.
    ///
    /// # Errors
    /// [`ParamsError::Unknown`] for a pattern that matches nothing.
    pub fn by_patterns<S: AsRef<str>>(whole: &Arc<Layout>, patterns: &[S]) -> Result<Self, ParamsError> {
        for pattern in patterns {
            if !whole.specs().iter().any(|spec| matches(pattern.as_ref(), &spec.name)) {
                return Err(ParamsError::Unknown(pattern.as_ref().to_owned()));
            }
        }
        Ok(Self::new(whole, |spec| patterns.iter().any(|pattern| matches(pattern.as_ref(), &spec.name))))
    }

    /// The same cut with all buffers (batch norm's running statistics) on the personal side.
    #[must_use]
    pub fn with_personal_buffers(&self) -> Self {
        Self::new(&self.whole, |spec| {
            spec.kind == Kind::Buffer || self.personal.layout.position(&spec.name).is_some()
        })
    }

    /// Layout of the whole network.
    pub fn whole(&self) -> &Arc<Layout> {
        &self.whole
    }

    /// Layout of the base.
    pub fn base(&self) -> &Arc<Layout> {
        &self.base.layout
    }

    /// Layout of the personal side.
    pub fn personal(&self) -> &Arc<Layout> {
        &self.personal.layout
    }

    /// Takes a network's parameters apart.
    ///
    /// # Panics
    /// If `params` are those of another network.
    pub fn cut(&self, params: &Params) -> (Shared, Kept) {
        assert!(*params.layout() == self.whole, "cut of another network's parameters");
        (Shared(self.base.take(params)), Kept(self.personal.take(params)))
    }

    /// Puts a network's parameters together again.
    ///
    /// # Panics
    /// If one of the parts comes from another cut.
    pub fn join(&self, base: &Shared, personal: &Kept) -> Params {
        self.join_params(&base.0, &personal.0)
    }

    /// The same of two sides that are not held apart by their types.
    ///
    /// # Panics
    /// If one of the parts comes from another cut.
    pub fn join_params(&self, base: &Params, personal: &Params) -> Params {
        assert!(*base.layout() == self.base.layout, "join with another cut's base");
        assert!(*personal.layout() == self.personal.layout, "join with another cut's personal parameters");
        let mut whole = Params::zeros(self.whole.clone());
        self.base.put(base, &mut whole);
        self.personal.put(personal, &mut whole);
        whole
    }
}

/// Whether `name` matches `pattern`, where `*` stands for any characters, none included.
fn matches(pattern: &str, name: &str) -> bool {
    // The first place where a part fits is as good as any other: patterns that a server sends cost no more than that.
    let mut parts = pattern.split('*');
    let head = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout() -> Arc<Layout> {
        Layout::new(vec![
            Spec::trainable("conv1.weight", [2, 2]),
            Spec::trainable("bn1.weight", [2]),
            Spec::buffer("bn1.running_mean", [2]),
            Spec::trainable("fc.weight", [3]),
            Spec::trainable("fc.bias", [1]),
        ])
        .unwrap()
    }

    fn names(layout: &Layout) -> Vec<&str> {
        layout.specs().iter().map(|spec| spec.name.as_str()).collect()
    }

    proptest! {
        #[test]
        fn join_undoes_cut(mask in prop::collection::vec(any::<bool>(), 5), bits in prop::collection::vec(any::<u32>(), 12)) {
            let layout = layout();
            let split = Split::new(&layout, |spec| mask[layout.position(&spec.name).unwrap()]);
            let params = Params::from_values(layout.clone(), bits.into_iter().map(f32::from_bits).collect()).unwrap();
            let (base, personal) = split.cut(&params);
            prop_assert_eq!(split.base().len() + split.personal().len(), layout.len());
            prop_assert_eq!(split.join(&base, &personal), params);
        }
    }

    #[test]
    fn patterns_choose_by_name() {
        let layout = layout();
        assert_eq!(
            names(Split::by_patterns(&layout, &["fc.*"]).unwrap().personal()),
            ["fc.weight", "fc.bias"]
        );
        assert_eq!(
            names(Split::by_patterns(&layout, &["*.bias", "bn*"]).unwrap().personal()),
            ["bn1.weight", "bn1.running_mean", "fc.bias"]
        );
        assert_eq!(
            Split::by_patterns(&layout, &["head.*"]).unwrap_err(),
            ParamsError::Unknown("head.*".into())
        );
        assert_eq!(
            Split::by_names(&layout, &["fc.bias", "no"]).unwrap_err(),
            ParamsError::Unknown("no".into())
        );
    }

    #[test]
    fn stars_match_any_characters() {
        for (pattern, name, expected) in [
            ("a*b*c", "a.b.c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("fc", "fc.weight", false),
            ("*é", "café", true),
            ("ab*ab", "ab", false),
            ("ab*ab", "abab", true),
            ("a**b", "ab", true),
            ("*ab*", "xaab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        // Each of the stars could stand for any part of it.
        assert!(!matches(&("*a".repeat(40) + "*b"), &"a".repeat(200)));
    }

    #[test]
    fn personal_buffers_move_only_the_statistics() {
        let split = Split::by_patterns(&layout(), &["fc.bias"]).unwrap().with_personal_buffers();
        assert_eq!(names(split.personal()), ["bn1.running_mean", "fc.bias"]);
    }
}
