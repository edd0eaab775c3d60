//! A message: metadata, and a content of objects or an error.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;

use crate::error::Malformed;
use crate::object::{Kind, ObjectId, Objects, Tree};
use crate::proto::{self, Metadata};
use crate::records::{Content, Packed};

/// Flower's code for "the app raised an exception".
pub const APP_FAILED: i64 = 2;

/// Flower's codes of errors that a SuperLink answers with in a node's place: the question or the answer has expired, the
/// node is offline.
const FROM_SUPERLINK: std::ops::RangeInclusive<i64> = 3..=5;

/// At most this many objects in a message, and this many levels.
const MOST_OBJECTS: usize = 100_000;
const MOST_LEVELS: usize = 8;

/// A message that is ready to be pushed.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub(crate) message: proto::Message,
    pub(crate) tree: proto::ObjectTree,
    pub(crate) objects: Objects,
}

impl Outgoing {
    /// `content` under `metadata`, whose id is filled in.
    pub fn new(metadata: Metadata, content: &Packed) -> Self {
        Self::build(metadata, Some(content), None)
    }

    /// An error instead of a content.
    pub fn error(metadata: Metadata, reason: &str) -> Self {
        let error = proto::Error { code: APP_FAILED, reason: reason.to_owned() };
        Self::build(metadata, None, Some(error))
    }

    fn build(mut metadata: Metadata, content: Option<&Packed>, error: Option<proto::Error>) -> Self {
        metadata.message_id.clear();
        // As an object, a message has no content and no id.
        let body = proto::Message { metadata: Some(metadata.clone()), content: None, error: error.clone() };
        let mut objects = content.map(|content| content.objects.clone()).unwrap_or_default();
        let children: Vec<ObjectId> = content.iter().map(|content| content.tree.id).collect();
        let id = objects.make(Kind::Message, &children, &body.encode_to_vec());
        metadata.message_id = id.to_string();
        let tree = Tree { id, children: content.iter().map(|content| content.tree.clone()).collect() };
        let content = error.is_none().then_some(proto::Empty {});
        Self {
            message: proto::Message { metadata: Some(metadata), content, error },
            tree: to_proto(&tree),
            objects,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.message.metadata.as_ref().map_or("", |metadata| &metadata.message_id)
    }

    /// Bytes of all its objects.
    pub fn total_bytes(&self) -> u64 {
        self.objects.total_bytes()
    }
}

/// A message that was announced; its objects are still to be fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// Who sent it, when, in answer to what.
    pub metadata: Metadata,
    /// An error instead of a content.
    pub error: Option<proto::Error>,
    /// Its objects.
    pub tree: Tree,
}

impl Incoming {
    pub(crate) fn new(message: proto::Message, tree: &proto::ObjectTree) -> Result<Self, Malformed> {
        let mut count = 0;
        let tree = from_proto(tree, 0, &mut count)?;
        let metadata = message.metadata.unwrap_or_default();
        if metadata.message_id != tree.id.to_string() && message.error.is_none() {
            return Err(Malformed::Body {
                what: "a message",
                why: format!("its id is {}, its objects' root {}", metadata.message_id, tree.id),
            });
        }
        Ok(Self { metadata, error: message.error, tree })
    }

    /// Whether it says that no answer will come, rather than being one.
    pub fn is_lost(&self) -> bool {
        self.error.as_ref().is_some_and(|error| FROM_SUPERLINK.contains(&error.code))
    }

    /// What it holds, once its objects are there.
    ///
    /// # Errors
    /// [`Malformed`] if an object is missing or is not what it should be.
    pub fn content(&self, objects: Objects) -> Result<Content, Malformed> {
        let message = objects.get(self.tree.id, Kind::Message)?;
        match message.children[..] {
            [dict] => Content::unpack(dict, objects),
            _ => Err(Malformed::Body { what: "a message", why: "it does not hold one record dict".into() }),
        }
    }

    /// The metadata of an answer to it, from `node`.
    pub fn answer(&self, node: u64) -> Metadata {
        let (asked, now) = (&self.metadata, now());
        Metadata {
            run_id: asked.run_id,
            message_id: String::new(),
            src_node_id: node,
            dst_node_id: asked.src_node_id,
            reply_to_message_id: asked.message_id.clone(),
            group_id: asked.group_id.clone(),
            ttl: (asked.ttl - (now - asked.created_at)).max(0.001),
            message_type: asked.message_type.clone(),
            created_at: now,
            src_task_id: asked.dst_task_id,
            dst_task_id: asked.src_task_id,
        }
    }

    /// Whether its time has passed.
    pub fn has_expired(&self) -> bool {
        now() > self.metadata.created_at + self.metadata.ttl
    }

    /// As bytes, to be taken up again by [`Incoming::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let message = proto::Message {
            metadata: Some(self.metadata.clone()),
            content: self.error.is_none().then_some(proto::Empty {}),
            error: self.error.clone(),
        };
        proto::PullMessagesResponse {
            messages_list: vec![message],
            message_object_trees: vec![to_proto(&self.tree)],
        }
        .encode_to_vec()
    }

    /// What [`Incoming::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = proto::PullMessagesResponse::decode(bytes)
            .map_err(|error| Malformed::Body { what: "a message", why: error.to_string() })?;
        let (Some(message), Some(tree)) =
            (read.messages_list.into_iter().next(), read.message_object_trees.first())
        else {
            return Err(Malformed::Body { what: "a message", why: "there is none".into() });
        };
        Self::new(message, tree)
    }
}

fn to_proto(tree: &Tree) -> proto::ObjectTree {
    proto::ObjectTree {
        object_id: tree.id.to_string(),
        children: tree.children.iter().map(to_proto).collect(),
    }
}

fn from_proto(tree: &proto::ObjectTree, level: usize, count: &mut usize) -> Result<Tree, Malformed> {
    *count += 1;
    for (what, found, most) in
        [("levels of objects", level, MOST_LEVELS), ("objects of a message", *count, MOST_OBJECTS)]
    {
        if found > most {
            return Err(Malformed::TooLarge { what, found: found as u64, most: most as u64 });
        }
    }
    let children = tree.children.iter().map(|child| from_proto(child, level + 1, count));
    Ok(Tree { id: tree.object_id.parse()?, children: children.collect::<Result<_, _>>()? })
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Values;

    #[test]
    fn a_message_comes_back_as_it_went() {
        let mut config = Values::default();
        config.set_int("server-round", 7);
        let packed = Content { config: Some(config.clone()), ..Content::default() }.pack();
        let metadata = Metadata {
            run_id: 3,
            src_node_id: 1,
            dst_node_id: 9,
            ttl: 60.0,
            created_at: now(),
            message_type: "train".into(),
            src_task_id: Some(5),
            ..Metadata::default()
        };
        let outgoing = Outgoing::new(metadata, &packed);
        let incoming = Incoming::new(outgoing.message.clone(), &outgoing.tree).unwrap();
        assert_eq!(Incoming::from_bytes(&incoming.to_bytes()).unwrap(), incoming);
        assert_eq!(incoming.content(outgoing.objects.clone()).unwrap().config, Some(config));
        let answer = incoming.answer(9);
        assert_eq!((answer.src_node_id, answer.dst_node_id, answer.dst_task_id), (9, 1, Some(5)));
        assert_eq!(answer.reply_to_message_id, outgoing.id());
        assert!(answer.created_at + answer.ttl <= incoming.metadata.created_at + 60.001);
        assert!(!incoming.has_expired());

        let mut other = outgoing.message;
        other.metadata.as_mut().unwrap().message_id = "x".into();
        assert!(Incoming::new(other, &outgoing.tree).is_err());
        let refused = Outgoing::error(answer, "no");
        assert_eq!(refused.objects.len(), 1);
        assert_eq!(refused.message.error.as_ref().unwrap().reason, "no");
        for (code, lost) in [(APP_FAILED, false), (3, true), (5, true)] {
            let error = Some(proto::Error { code, reason: "why".into() });
            assert_eq!(Incoming { error, ..incoming.clone() }.is_lost(), lost, "{code}");
        }
    }

    #[test]
    fn a_tree_without_end_is_refused() {
        let mut tree = to_proto(&Tree::leaf(ObjectId::of(b"x")));
        for _ in 0..20 {
            tree = proto::ObjectTree { object_id: tree.object_id.clone(), children: vec![tree] };
        }
        assert!(matches!(from_proto(&tree, 0, &mut 0), Err(Malformed::TooLarge { .. })));
    }
}
