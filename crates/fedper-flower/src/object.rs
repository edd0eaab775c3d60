//! Content-addressed objects: how everything large travels.
//!
//! ```text
//! object = "<type> <child ids, comma-separated> <length of body>" 0x00 body        id = hex(sha256(object))
//! ```
//!
//! Without children there are two spaces in a row. Children are listed once each, in the order of first use.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::Malformed;

/// The largest body of a [`Kind::ArrayChunk`], in bytes.
pub const CHUNK: usize = 5_242_880;

/// Objects that name others are small: so many bytes of them are tried in a message, and no more.
const MOST_TRIED: usize = 16 << 20;

/// The name of an object: the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    /// The name of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = Malformed;

    /// 64 hexadecimal digits, in lower case.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(Malformed::Header("an object id has 64 digits"));
        };
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(Malformed::Header("an object id has 64 hexadecimal digits"))
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A slice of an array's `.npy` bytes.
    ArrayChunk,
    /// An array: its type and shape, and which children its bytes are.
    Array,
    /// Arrays by name.
    ArrayRecord,
    /// Settings by name.
    ConfigRecord,
    /// Measurements by name.
    MetricRecord,
    /// Records by name.
    RecordDict,
    /// A message: its metadata, with a record dict as its one child.
    Message,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::ArrayChunk,
        Self::Array,
        Self::ArrayRecord,
        Self::ConfigRecord,
        Self::MetricRecord,
        Self::RecordDict,
        Self::Message,
    ];

    /// As it is written in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::ArrayChunk => "ArrayChunk",
            Self::Array => "Array",
            Self::ArrayRecord => "ArrayRecord",
            Self::ConfigRecord => "ConfigRecord",
            Self::MetricRecord => "MetricRecord",
            Self::RecordDict => "RecordDict",
            Self::Message => "Message",
        }
    }
}

/// An object that was read: its parts, still in the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// What it is.
    pub kind: Kind,
    /// The objects it refers to.
    pub children: Vec<ObjectId>,
    /// What it holds.
    pub body: &'a [u8],
}

/// The bytes of an object.
pub fn encode(kind: Kind, children: &[ObjectId], body: &[u8]) -> Vec<u8> {
    let ids: Vec<String> = children.iter().map(ToString::to_string).collect();
    let mut bytes = format!("{} {} {}\0", kind.name(), ids.join(","), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The bytes of an object after the children of `last` have become those of `now`, wherever it names them.
fn with_children(bytes: &[u8], last: &Tree, now: &Tree) -> Vec<u8> {
    let names = last.children.iter().zip(&now.children);
    let names: BTreeMap<String, String> =
        names.map(|(last, now)| (last.id.to_string(), now.id.to_string())).collect();
    // In the header they stand between blanks and commas, in a body of JSON between quotation marks.
    let mut out = Vec::with_capacity(bytes.len());
    for part in bytes.split_inclusive(|byte| !byte.is_ascii_hexdigit()) {
        let digits = part.len() - usize::from(part.last().is_some_and(|byte| !byte.is_ascii_hexdigit()));
        let (word, end) = part.split_at(digits);
        let name = str::from_utf8(word).ok().and_then(|word| names.get(word));
        out.extend_from_slice(name.map_or(word, |name| name.as_bytes()));
        out.extend_from_slice(end);
    }
    out
}

impl<'a> Object<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// [`Malformed`] if the header is none, or does not fit the body.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let end = bytes.iter().position(|&b| b == 0).ok_or(Malformed::Header("no end"))?;
        let header = str::from_utf8(&bytes[..end]).map_err(|_| Malformed::Header("not text"))?;
        let mut parts = header.split(' ');
        let (Some(kind), Some(children), Some(length), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::Header("three parts expected"));
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or(Malformed::Header("an unknown type"))?;
        let children = if children.is_empty() {
            Vec::new()
        } else {
            children.split(',').map(str::parse).collect::<Result<_, _>>()?
        };
        let body = &bytes[end + 1..];
        let found = body.len() as u64;
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Malformed::Header("its length is not a number"));
        }
        match length.parse::<u64>() {
            Ok(expected) if expected == found => Ok(Self { kind, children, body }),
            Ok(expected) => Err(Malformed::Length { expected, found }),
            Err(_) => Err(Malformed::Header("its length is not a number")),
        }
    }

    /// The same, if it is a `kind`.
    ///
    /// # Errors
    /// [`Malformed::Type`] if it is something else.
    pub fn expect(self, kind: Kind) -> Result<Self, Malformed> {
        if self.kind == kind {
            Ok(self)
        } else {
            Err(Malformed::Type { expected: kind.name(), found: self.kind.name().to_owned() })
        }
    }
}

/// An object and what hangs below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The object.
    pub id: ObjectId,
    /// Its children, in order.
    pub children: Vec<Tree>,
}

impl Tree {
    /// An object without children.
    pub fn leaf(id: ObjectId) -> Self {
        Self { id, children: Vec::new() }
    }

    /// Every object once, children before their parents: the order to fetch them in.
    pub fn deepest_first(&self) -> Vec<ObjectId> {
        fn walk(tree: &Tree, seen: &mut std::collections::BTreeSet<ObjectId>, out: &mut Vec<ObjectId>) {
            for child in &tree.children {
                walk(child, seen, out);
            }
            if seen.insert(tree.id) {
                out.push(tree.id);
            }
        }
        let mut out = Vec::new();
        walk(self, &mut std::collections::BTreeSet::new(), &mut out);
        out
    }
}

/// Objects by name. Cloning shares the bytes.
#[derive(Clone, Debug, Default)]
pub struct Objects(BTreeMap<ObjectId, Arc<[u8]>>);

impl Objects {
    /// Makes an object and keeps it.
    pub fn make(&mut self, kind: Kind, children: &[ObjectId], body: &[u8]) -> ObjectId {
        let bytes = encode(kind, children, body);
        let id = ObjectId::of(&bytes);
        self.0.insert(id, bytes.into());
        id
    }

    /// Keeps what came as `id`.
    ///
    /// # Errors
    /// [`Malformed::Hash`] if it is something else.
    pub fn take(&mut self, id: ObjectId, bytes: Vec<u8>) -> Result<(), Malformed> {
        let found = ObjectId::of(&bytes);
        if found != id {
            return Err(Malformed::Hash { expected: id.to_string(), found: found.to_string() });
        }
        self.0.insert(id, bytes.into());
        Ok(())
    }

    /// The bytes of `id`.
    pub fn bytes(&self, id: ObjectId) -> Option<&Arc<[u8]>> {
        self.0.get(&id)
    }

    /// The object `id`, which is a `kind`.
    ///
    /// # Errors
    /// [`Malformed`] if it is missing, is something else, or cannot be read.
    pub fn get(&self, id: ObjectId, kind: Kind) -> Result<Object<'_>, Malformed> {
        let bytes = self.0.get(&id).ok_or_else(|| Malformed::Missing(id.to_string()))?;
        Object::parse(bytes)?.expect(kind)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all of them.
    pub fn total_bytes(&self) -> u64 {
        self.0.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Those that have children in `tree`: what others are derived from, without the arrays' bytes.
    pub fn parents(&self, tree: &Tree) -> Self {
        fn walk(tree: &Tree, all: &Objects, out: &mut Objects) {
            if !tree.children.is_empty() {
                out.0.extend(all.0.get(&tree.id).map(|bytes| (tree.id, bytes.clone())));
            }
            tree.children.iter().for_each(|child| walk(child, all, out));
        }
        let mut out = Self::default();
        walk(tree, self, &mut out);
        out
    }

    /// Those of `tree`'s objects that can be told without asking for them, from `last`, a message of the same kind whose
    /// objects were `known`: what is the same as then, and what has other children now and is otherwise as it was (a record
    /// with another array, an array with other chunks). An object's name is its hash, so a wrong guess is none. The root is
    /// never among them: it is sent last, so whoever has it knows that everything was sent.
    pub fn derive(&mut self, tree: &Tree, last: &Tree, known: &Self) {
        let mut left = MOST_TRIED;
        self.derive_children(tree, last, known, &mut left);
    }

    fn derive_children(&mut self, tree: &Tree, last: &Tree, known: &Self, left: &mut usize) {
        for (tree, last) in tree.children.iter().zip(&last.children) {
            self.derive_children(tree, last, known, left);
            let Some(bytes) = known.0.get(&last.id) else { continue };
            if tree.id == last.id {
                self.0.insert(tree.id, bytes.clone());
            } else if !tree.children.is_empty()
                && let Some(rest) = left.checked_sub(bytes.len())
            {
                *left = rest;
                let guess = with_children(bytes, last, tree);
                if ObjectId::of(&guess) == tree.id {
                    self.0.insert(tree.id, guess.into());
                }
            }
        }
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

#[cfg(test)]
mod tests;
