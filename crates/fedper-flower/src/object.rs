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

    /// Those of these objects that there are.
    pub fn only(&self, ids: &[ObjectId]) -> Self {
        Self(ids.iter().filter_map(|id| Some((*id, self.0.get(id)?.clone()))).collect())
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_object_by_hand() {
        let bytes = encode(Kind::ArrayChunk, &[], b"abc");
        assert_eq!(bytes, b"ArrayChunk  3\0abc");
        // echo -ne 'ArrayChunk  3\0abc' | sha256sum
        let id = ObjectId::of(&bytes);
        let parent = encode(Kind::Array, &[id, id], b"");
        assert_eq!(parent, format!("Array {id},{id} 0\0").into_bytes());
        assert_eq!(Object::parse(&parent).unwrap().children, [id, id]);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn what_is_malformed_is_said() {
        for (bytes, expected) in [
            (&b"ArrayChunk  3"[..], Malformed::Header("no end")),
            (b"ArrayChunk 3\0abc", Malformed::Header("three parts expected")),
            (b"Thing  3\0abc", Malformed::Header("an unknown type")),
            (b"Array xy 3\0abc", Malformed::Header("an object id has 64 hexadecimal digits")),
            (b"ArrayChunk  +3\0abc", Malformed::Header("its length is not a number")),
            (b"ArrayChunk  99999999999999999999\0a", Malformed::Header("its length is not a number")),
            (b"ArrayChunk  4\0abc", Malformed::Length { expected: 4, found: 3 }),
        ] {
            assert_eq!(Object::parse(bytes).unwrap_err(), expected);
        }
        let mut objects = Objects::default();
        let id = objects.make(Kind::MetricRecord, &[], b"");
        assert!(matches!(objects.get(id, Kind::Array), Err(Malformed::Type { .. })));
        assert!(matches!(objects.take(id, b"other".to_vec()), Err(Malformed::Hash { .. })));
    }

    #[test]
    fn a_tree_lists_each_object_once_and_children_first() {
        let id = |n: u8| ObjectId([n; 32]);
        let shared = Tree::leaf(id(1));
        let tree = Tree {
            id: id(9),
            children: vec![
                Tree { id: id(2), children: vec![shared.clone()] },
                Tree { id: id(3), children: vec![shared] },
            ],
        };
        assert_eq!(tree.deepest_first(), [id(1), id(2), id(3), id(9)]);
    }

    proptest! {
        #[test]
        fn objects_come_back_as_they_went(
            kind in prop::sample::select(&Kind::ALL[..]),
            children in prop::collection::vec(any::<[u8; 32]>(), 0..5),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let children: Vec<ObjectId> = children.into_iter().map(ObjectId).collect();
            let bytes = encode(kind, &children, &body);
            prop_assert_eq!(Object::parse(&bytes).unwrap(), Object { kind, children, body: &body });
            for cut in 1..=bytes.len() {
                prop_assert!(Object::parse(&bytes[..bytes.len() - cut]).is_err());
            }
        }
    }
}
