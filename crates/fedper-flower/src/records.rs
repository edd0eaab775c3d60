//! What a message holds: records by name. Arrays by parameter name, measurements, settings.

mod values;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fedper_core::params::{Layout, Params};
use fedper_core::split::Shared;

pub use self::values::Values;
use crate::error::Malformed;
use crate::npy;
use crate::object::{CHUNK, Kind, ObjectId, Objects, Tree};

/// Arrays by name. It is made of a base, or came with a message.
#[derive(Clone, Debug)]
pub struct ArrayRecord {
    root: Tree,
    objects: Objects,
}

/// What the name of a base's only array begins with where it is sent flat; the layout's fingerprint follows.
const FLAT: &str = "flat-";

impl ArrayRecord {
    /// Every parameter of `base`, by its name, in its order: what any Flower app understands.
    pub fn of(base: &Shared) -> Self {
        let params = base.params().iter();
        Self::make(params.map(|(spec, values)| (spec.name.clone(), spec.shape.as_slice(), values)))
    }

    /// All values of `base` in one array, for whoever has the same layout and says that it reads this.
    ///
    /// Each array is two objects, and each object two calls of the SuperLink's on its way: a deep network of hundreds of
    /// small arrays arrives much sooner in few large pieces.
    pub fn flat(base: &Shared) -> Self {
        let params = base.params();
        let values = params.values();
        Self::make([(flat_name(params.layout()), &[values.len()][..], values)].into_iter())
    }

    /// Whether its arrays were put into one by [`ArrayRecord::flat`].
    pub fn is_flat(&self) -> bool {
        self.names().is_ok_and(|names| flat(&names).is_some())
    }

    fn make<'a>(named: impl Iterator<Item = (String, &'a [usize], &'a [f32])>) -> Self {
        let mut objects = Objects::default();
        let mut names = serde_json::Map::new();
        let mut arrays: Vec<Tree> = Vec::new();
        for (name, shape, values) in named {
            let array = array(&mut objects, shape, values);
            names.insert(name, array.id.to_string().into());
            // Equal arrays are one object.
            if arrays.iter().all(|other| other.id != array.id) {
                arrays.push(array);
            }
        }
        let ids: Vec<ObjectId> = arrays.iter().map(|array| array.id).collect();
        let body = serde_json::Value::Object(names).to_string();
        let id = objects.make(Kind::ArrayRecord, &ids, body.as_bytes());
        Self { root: Tree { id, children: arrays }, objects }
    }

    /// Bytes of all its objects.
    pub fn total_bytes(&self) -> u64 {
        self.root
            .deepest_first()
            .iter()
            .filter_map(|&id| self.objects.bytes(id))
            .map(|b| b.len() as u64)
            .sum()
    }

    /// The values, which must be exactly those of `layout`: its names, its shapes, 32-bit floats. Or all of them in one
    /// array, for exactly this layout.
    ///
    /// # Errors
    /// [`Malformed`] that names the first array that is missing, not asked for, or otherwise laid out.
    pub fn to_params(&self, layout: &Arc<Layout>) -> Result<Params, Malformed> {
        let names = self.names()?;
        let of = |name: &str, why: String| Malformed::Array { name: name.to_owned(), why };
        let mut params = Params::zeros(layout.clone());
        let mut bytes = Vec::new();
        if let Some((name, id)) = flat(&names) {
            if name != flat_name(layout) {
                return Err(of(name, "holds a base of other parameters".into()));
            }
            self.gather(id.parse()?, 4 * layout.numel(), &mut bytes)
                .map_err(|error| of(name, error.to_string()))?;
            npy::read_into(&bytes, &[layout.numel()], params.values_mut()).map_err(|why| of(name, why))?;
            return Ok(params);
        }
        if let Some(name) = names.keys().filter(|name| layout.position(name).is_none()).min() {
            return Err(of(name, "is not a part of the base".into()));
        }
        for (position, spec) in layout.specs().iter().enumerate() {
            let id = names.get(&spec.name).ok_or_else(|| of(&spec.name, "is missing".into()))?;
            self.gather(id.parse()?, 4 * spec.numel(), &mut bytes)
                .map_err(|error| of(&spec.name, error.to_string()))?;
            npy::read_into(&bytes, &spec.shape, params.at_mut(position))
                .map_err(|why| of(&spec.name, why))?;
        }
        Ok(params)
    }

    /// The objects' ids by the arrays' names.
    fn names(&self) -> Result<HashMap<String, String>, Malformed> {
        json(self.objects.get(self.root.id, Kind::ArrayRecord)?.body, "an array record")
    }

    /// An array's bytes, of which `values` are values.
    fn gather(&self, id: ObjectId, values: usize, bytes: &mut Vec<u8>) -> Result<(), Malformed> {
        let array = self.objects.get(id, Kind::Array)?;
        let about: About = About::read(array.body)?;
        // A header has some hundred bytes. A list may name a chunk many times: never more than the array needs.
        let most = values as u64 + 65_536;
        bytes.clear();
        for index in about.chunks {
            let chunk = usize::try_from(index).ok().and_then(|index| array.children.get(index));
            let chunk = chunk.ok_or_else(|| Malformed::Missing(format!("chunk {index}")))?;
            let chunk = self.objects.get(*chunk, Kind::ArrayChunk)?;
            let found = (bytes.len() + chunk.body.len()) as u64;
            if found > most {
                return Err(Malformed::TooLarge { what: "an array", found, most });
            }
            bytes.extend_from_slice(chunk.body);
        }
        Ok(())
    }
}

fn flat_name(layout: &Layout) -> String {
    format!("{FLAT}{:016x}", layout.fingerprint())
}

/// The only array of a flat base: its name, its object's id.
fn flat(names: &HashMap<String, String>) -> Option<(&str, &str)> {
    let (name, id) = names.iter().next().filter(|(name, _)| names.len() == 1 && name.starts_with(FLAT))?;
    Some((name, id))
}

/// An array and its chunks, in NumPy's format.
fn array(objects: &mut Objects, shape: &[usize], values: &[f32]) -> Tree {
    let bytes = npy::write(shape, values);
    let chunks: Vec<ObjectId> =
        bytes.chunks(CHUNK).map(|chunk| objects.make(Kind::ArrayChunk, &[], chunk)).collect();
    let mut children: Vec<ObjectId> = Vec::new();
    let mut indices = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let index = children.iter().position(|&child| child == chunk).unwrap_or(children.len());
        if index == children.len() {
            children.push(chunk);
        }
        indices.push(index);
    }
    let about = serde_json::json!({
        "dtype": "float32", "shape": shape, "stype": "numpy.ndarray", "arraychunk_ids": indices,
    });
    let id = objects.make(Kind::Array, &children, about.to_string().as_bytes());
    Tree { id, children: children.into_iter().map(Tree::leaf).collect() }
}

/// The body of an array object, as far as it matters: the values tell the rest themselves.
struct About {
    chunks: Vec<u64>,
}

impl About {
    fn read(body: &[u8]) -> Result<Self, Malformed> {
        let why = |why: &str| Malformed::Body { what: "an array", why: why.to_owned() };
        let about: serde_json::Value = json(body, "an array")?;
        let dtype = about.get("dtype").and_then(|dtype| dtype.as_str());
        if dtype != Some("float32") {
            return Err(why(&format!("it holds {}, expected float32", dtype.unwrap_or("nothing known"))));
        }
        if about.get("stype").and_then(|stype| stype.as_str()) != Some("numpy.ndarray") {
            return Err(why("it is not in NumPy's format"));
        }
        let chunks = about.get("arraychunk_ids").and_then(|ids| ids.as_array());
        let chunks = chunks.ok_or_else(|| why("it names no chunks"))?;
        let chunks: Option<Vec<u64>> = chunks.iter().map(serde_json::Value::as_u64).collect();
        Ok(Self { chunks: chunks.ok_or_else(|| why("a chunk's place is not a number"))? })
    }
}

fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8], what: &'static str) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|error| Malformed::Body { what, why: error.to_string() })
}

/// All that a message holds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Arrays, under the name `arrays`.
    pub arrays: Option<ArrayRecord>,
    /// Measurements, under the name `metrics`.
    pub metrics: Option<Values>,
    /// Settings, under the name `config`.
    pub config: Option<Values>,
}

/// A content as objects, ready to go into any number of messages.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The record dict and all below it.
    pub tree: Tree,
    /// Their bytes.
    pub objects: Objects,
}

impl Content {
    /// The objects it is made of.
    pub fn pack(&self) -> Packed {
        let mut objects = Objects::default();
        let mut names = serde_json::Map::new();
        let mut children: Vec<Tree> = Vec::new();
        let mut put = |name: &str, tree: Tree| {
            names.insert(name.to_owned(), tree.id.to_string().into());
            if children.iter().all(|child| child.id != tree.id) {
                children.push(tree);
            }
        };
        if let Some(arrays) = &self.arrays {
            objects.extend(arrays.objects.clone());
            put("arrays", arrays.root.clone());
        }
        if let Some(metrics) = &self.metrics {
            put("metrics", Tree::leaf(objects.make(Kind::MetricRecord, &[], &metrics.to_bytes())));
        }
        if let Some(config) = &self.config {
            put("config", Tree::leaf(objects.make(Kind::ConfigRecord, &[], &config.to_bytes())));
        }
        let ids: Vec<ObjectId> = children.iter().map(|child| child.id).collect();
        let body = serde_json::Value::Object(names).to_string();
        let id = objects.make(Kind::RecordDict, &ids, body.as_bytes());
        Packed { tree: Tree { id, children }, objects }
    }

    /// Reads the record dict `id`. Of each kind of record there may be one, whatever its name.
    ///
    /// # Errors
    /// [`Malformed`] if an object is missing or is not what it should be.
    pub fn unpack(id: ObjectId, objects: Objects) -> Result<Self, Malformed> {
        let dict = objects.get(id, Kind::RecordDict)?;
        let names: BTreeMap<String, String> = json(dict.body, "a record dict")?;
        let mut content = Self::default();
        let mut arrays = None;
        for (name, id) in names {
            let id: ObjectId = id.parse()?;
            let bytes = objects.bytes(id).ok_or_else(|| Malformed::Missing(id.to_string()))?;
            let object = crate::object::Object::parse(bytes)?;
            let twice = || Malformed::Body {
                what: "a message",
                why: format!("`{name}` is a second record of its kind"),
            };
            let second = match object.kind {
                Kind::ArrayRecord => arrays.replace(id).is_some(),
                Kind::MetricRecord => {
                    content.metrics.replace(Values::from_bytes(object.body, "a metric record")?).is_some()
                }
                Kind::ConfigRecord => {
                    content.config.replace(Values::from_bytes(object.body, "a config record")?).is_some()
                }
                other => {
                    return Err(Malformed::Type { expected: "a record", found: other.name().to_owned() });
                }
            };
            if second {
                return Err(twice());
            }
        }
        content.arrays = arrays.map(|id| ArrayRecord { root: Tree::leaf(id), objects });
        Ok(content)
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
