//! Bytes that are not what they should be: whatever comes, it is an error or a value, never a panic, and never more memory
//! than a fixed multiple of the input's size.
//!
//! Inputs are valid ones that were changed at random (bits, bytes, cuts, insertions, pieces of other inputs), drawn from a
//! seed. `FEDPER_FUZZ_CASES` says how many in all; a failure names its case, and `FEDPER_FUZZ_FIRST` begins there.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fedper_core::params::{Layout, Params, Spec};
use fedper_core::parts::Parts;
use fedper_core::seed::{self, Purpose};
use fedper_core::split::Split;
use fedper_flower::message::Incoming;
use fedper_flower::object::{Kind, Object, ObjectId, Objects, Tree};
use fedper_flower::records::{ArrayRecord, Content, Packed, Values};
use fedper_flower::{npy, proto};
use prost::Message as _;
use rand_core::Rng;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        PEAK.fetch_max(HELD.fetch_add(memory.size(), Relaxed) + memory.size(), Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, memory: Memory) {
        HELD.fetch_sub(memory.size(), Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(pointer, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A field of two bytes can become a struct of some hundred, in a vector that has grown to twice its length.
const MOST_PER_BYTE: usize = 512;
const MOST_ANYWAY: usize = 1 << 16;

/// Whether the input was accepted.
type Reader = Box<dyn Fn(&[u8]) -> bool>;

struct Target {
    name: &'static str,
    examples: Vec<Vec<u8>>,
    read: Reader,
}

fn layout() -> Arc<Layout> {
    Layout::new(vec![Spec::trainable("a.weight", [2, 3]), Spec::trainable("b", [4])]).unwrap()
}

fn content(flat: bool) -> Content {
    let layout = layout();
    let params = Params::from_values(layout.clone(), (0..10).map(|v| v as f32).collect()).unwrap();
    let mut metrics = Values::default();
    metrics.set_int("num-examples", 30);
    metrics.set_floats("losses", vec![0.5, 1.5]);
    let mut config = Values::default();
    config.set_text("fedper-config", "clients = 3");
    config.set_texts("failures", vec!["no".into(), "yes".into()]);
    config.set_bool("flag", true);
    let base = Parts::of(Split::all_base(&layout)).adopt_state(params).unwrap();
    Content {
        arrays: Some(if flat { ArrayRecord::flat(&base) } else { ArrayRecord::of(&base) }),
        metrics: Some(metrics),
        config: Some(config),
    }
}

/// What a receiver does with an object whose bytes are `bytes`: in place of one of the objects of a good message.
fn read_in_place(packed: &Packed, layout: &Arc<Layout>, kind: Kind, bytes: &[u8]) -> bool {
    let ids = packed.tree.deepest_first();
    let mut objects = packed.objects.clone();
    let new = ObjectId::of(bytes);
    objects.take(new, bytes.to_vec()).unwrap();
    let with_kind =
        |id: &&ObjectId| Object::parse(objects.bytes(**id).unwrap()).is_ok_and(|o| o.kind == kind);
    let old = *ids.iter().find(with_kind).unwrap();
    // Every parent is made anew, with the new child in the old one's place.
    let mut renamed = vec![(old, new)];
    for id in ids {
        let mut object = objects.bytes(id).unwrap().to_vec();
        let mut changed = false;
        for (from, to) in &renamed {
            let (from, to) = (from.to_string(), to.to_string());
            for start in 0..object.len().saturating_sub(63) {
                if &object[start..start + 64] == from.as_bytes() {
                    object[start..start + 64].copy_from_slice(to.as_bytes());
                    changed = true;
                }
            }
        }
        if changed {
            let to = ObjectId::of(&object);
            objects.take(to, object).unwrap();
            renamed.push((id, to));
        }
    }
    let root = renamed.iter().find(|(from, _)| *from == packed.tree.id).unwrap().1;
    let content = Content::unpack(root, objects);
    content.and_then(|content| content.arrays.map(|arrays| arrays.to_params(layout)).transpose()).is_ok()
}

fn targets() -> Vec<Target> {
    let (packed, flat) = (content(false).pack(), content(true).pack());
    let objects = |packed: &Packed| -> Vec<Vec<u8>> {
        let ids = packed.tree.deepest_first();
        ids.iter().map(|&id| packed.objects.bytes(id).unwrap().to_vec()).collect()
    };
    let all = objects(&packed);
    let of = |packed: &Packed, kind: Kind| -> Vec<Vec<u8>> {
        let objects = objects(packed).into_iter();
        objects.filter(|bytes| Object::parse(bytes).unwrap().kind == kind).collect()
    };
    let mut targets = vec![
        Target {
            name: "objects",
            examples: all.clone(),
            read: Box::new(|bytes| Object::parse(bytes).is_ok()),
        },
        Target {
            name: "npy",
            examples: vec![
                npy::write(&[2, 3], &[1.0; 6]),
                npy::write(&[6], &[1.0; 6]),
                npy::write(&[], &[1.0]),
            ],
            read: Box::new(|bytes| {
                npy::read_into(bytes, &[2, 3], &mut [0.0; 6]).is_ok() | npy::open(bytes).is_ok()
            }),
        },
    ];
    for (name, packed, kind) in [
        ("chunks in a message", &packed, Kind::ArrayChunk),
        ("arrays in a message", &packed, Kind::Array),
        ("array records in a message", &packed, Kind::ArrayRecord),
        ("chunks of a flat base", &flat, Kind::ArrayChunk),
        ("the array of a flat base", &flat, Kind::Array),
        ("the record of a flat base", &flat, Kind::ArrayRecord),
        ("metrics in a message", &packed, Kind::MetricRecord),
        ("settings in a message", &packed, Kind::ConfigRecord),
        ("record dicts", &packed, Kind::RecordDict),
    ] {
        targets.push(Target {
            name,
            examples: of(packed, kind),
            read: Box::new({
                let (packed, layout) = (packed.clone(), layout());
                move |bytes| read_in_place(&packed, &layout, kind, bytes)
            }),
        });
    }
    fn proto_tree(tree: &Tree) -> proto::ObjectTree {
        let children = tree.children.iter().map(proto_tree).collect();
        proto::ObjectTree { object_id: tree.id.to_string(), children }
    }
    let root = Tree { id: ObjectId::of(b"the message"), children: vec![packed.tree.clone()] };
    let metadata = proto::Metadata {
        run_id: 7,
        message_id: root.id.to_string(),
        message_type: "train".into(),
        ttl: 60.0,
        created_at: 1e9,
        ..proto::Metadata::default()
    };
    let announced = proto::PullMessagesResponse {
        messages_list: vec![proto::Message {
            metadata: Some(metadata),
            content: Some(proto::Empty {}),
            error: None,
        }],
        message_object_trees: vec![proto_tree(&root)],
    };
    targets.push(Target {
        name: "announced messages",
        examples: vec![announced.encode_to_vec()],
        read: Box::new(move |bytes| {
            let Ok(message) = Incoming::from_bytes(bytes) else { return false };
            // What follows from a message before it, and from it for one after it.
            for (now, last) in [(&message.tree, &root), (&root, &message.tree)] {
                let mut derived = Objects::default();
                derived.derive(now, last, &packed.objects);
                assert!(derived.len() <= packed.objects.len());
            }
            true
        }),
    });
    targets
}

/// What headers and lists are made of.
const PIECES: &[u8] = b"0123456789,'{}[]() \0\xff\x80-";

/// Changes `input` in one to four places.
fn mutate(random: &mut impl Rng, input: &mut Vec<u8>, other: &[u8]) {
    let mut below = |n: usize| (random.next_u64() % n.max(1) as u64) as usize;
    for _ in 0..=below(4) {
        let (kind, place) = (below(8), below(input.len()));
        match kind {
            _ if input.is_empty() => input.extend_from_slice(other),
            0 => input[place] ^= 1 << below(8),
            1 => input[place] = below(256) as u8,
            2 => input.truncate(place),
            3 => drop(input.remove(place)),
            4 => input.insert(place, PIECES[below(PIECES.len())]),
            5 => {
                let piece = &other[below(other.len())..];
                let piece = &piece[..below(piece.len() + 1)];
                input.splice(place..place, piece.iter().copied());
            }
            6 => {
                let piece: Vec<u8> = input[place..].iter().copied().take(1 + below(40)).collect();
                for _ in 0..=below(20) {
                    input.splice(place..place, piece.iter().copied());
                }
            }
            _ => {
                // A number becomes another one.
                let digits = input[place..].iter().position(u8::is_ascii_digit);
                if let Some(at) = digits {
                    let number = ["0", "-1", "4294967296", "18446744073709551615", "1e9"][below(5)];
                    input.splice(place + at..place + at + 1, number.bytes());
                }
            }
        }
    }
}

#[test]
fn whatever_comes_it_is_an_error_or_a_value() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = number("FEDPER_FUZZ_CASES").unwrap_or(100_000);
    let first = number("FEDPER_FUZZ_FIRST").unwrap_or(0);
    let targets = targets();
    for target in &targets {
        assert!(
            target.examples.iter().any(|bytes| (target.read)(bytes)),
            "{}: no example is good",
            target.name
        );
    }
    let mut accepted = vec![0u64; targets.len()];
    let mut worst = 0.0f64;
    for case in first..first + cases {
        let place = (case % targets.len() as u64) as usize;
        let target = &targets[place];
        let mut random = seed::derive(1, Purpose::Failure, 0, case);
        let mut pick = || &target.examples[(random.next_u64() % target.examples.len() as u64) as usize];
        let (mut input, other) = (pick().clone(), pick());
        mutate(&mut random, &mut input, other);
        // What a message needs beside the input is there before.
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        accepted[place] += u64::from((target.read)(&input));
        let used = PEAK.load(Relaxed) - before;
        let most = MOST_PER_BYTE * input.len() + MOST_ANYWAY;
        assert!(
            used <= most,
            "case {case} ({}): {used} bytes of memory for {} of input",
            target.name,
            input.len()
        );
        worst = worst.max(used as f64 / most as f64);
    }
    for (target, accepted) in targets.iter().zip(&accepted) {
        println!("{}: {accepted} of {} accepted", target.name, cases / targets.len() as u64);
    }
    println!("{cases} cases; at most {:.0} % of the memory allowed", 100.0 * worst);
}
