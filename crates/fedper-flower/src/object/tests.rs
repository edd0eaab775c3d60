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

#[test]
fn what_only_has_other_children_is_derived() {
    // A message with one array of two chunks, and settings.
    let message = |chunks: [&str; 2], settings: &str, names: [&str; 2]| {
        let mut objects = Objects::default();
        let leaf =
            |objects: &mut Objects, kind, body: &str| Tree::leaf(objects.make(kind, &[], body.as_bytes()));
        let over = |objects: &mut Objects, kind, children: Vec<Tree>, body: &str| {
            let ids: Vec<ObjectId> = children.iter().map(|child| child.id).collect();
            Tree { id: objects.make(kind, &ids, body.as_bytes()), children }
        };
        let chunks = chunks.map(|chunk| leaf(&mut objects, Kind::ArrayChunk, chunk));
        let array = over(&mut objects, Kind::Array, chunks.into(), r#"{"arraychunk_ids":[0,1]}"#);
        let body = format!(r#"{{"{}":"{}"}}"#, names[0], array.id);
        let record = over(&mut objects, Kind::ArrayRecord, vec![array], &body);
        let config = leaf(&mut objects, Kind::ConfigRecord, settings);
        let body = format!(r#"{{"arrays":"{}","{}":"{}"}}"#, record.id, names[1], config.id);
        let dict = over(&mut objects, Kind::RecordDict, vec![record, config], &body);
        let root = over(&mut objects, Kind::Message, vec![dict], "metadata");
        (root, objects)
    };
    let (last, known) = message(["one", "two"], "round 1", ["base", "config"]);
    let count = |chunks, settings, names| {
        let (tree, all) = message(chunks, settings, names);
        let mut derived = Objects::default();
        derived.derive(&tree, &last, &known);
        for (id, bytes) in &derived.0 {
            assert_eq!(Some(bytes), all.bytes(*id));
        }
        assert!(derived.bytes(tree.id).is_none(), "the root is fetched");
        derived.len()
    };
    // Array, record and dict of 7; with one chunk as it was; all of it but the root.
    assert_eq!(count(["1", "2"], "round 2", ["base", "config"]), 3);
    assert_eq!(count(["one", "2"], "round 2", ["base", "config"]), 4);
    assert_eq!(count(["one", "two"], "round 1", ["base", "config"]), 6);
    let parents = known.parents(&last);
    assert_eq!((known.len(), parents.len()), (7, 4));
    // Two chunks that change places, each in the other's.
    assert_eq!(count(["two", "one"], "round 2", ["base", "config"]), 3);
    // What is called otherwise is fetched: the record; the dict.
    assert_eq!(count(["1", "2"], "round 2", ["weights", "config"]), 2);
    assert_eq!(count(["1", "2"], "round 2", ["base", "settings"]), 2);
    // Nothing is known of a message of another form.
    let mut derived = Objects::default();
    derived.derive(&Tree { id: last.id, children: Vec::new() }, &last, &known);
    derived.derive(&last, &Tree::leaf(last.id), &known);
    derived.derive(&last, &last, &Objects::default());
    assert!(derived.is_empty());
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
