//! Requests, ready to send: two frames and a table of digests. Sending copies a frame and puts a
//! digest in.

use perigee_wire::{
    BIN_NAME_BYTES_MAX, Digest, NAMESPACE_BYTES_MAX, PROTO_HEADER_BYTES, ReplyWriter,
    RequestHeader, RequestWriter, ResultCode, SET_BYTES_MAX, compute_digest, field, info1, info2,
    op, particle,
};

use crate::error::BenchError;

/// 80 MB of digests; those of keys beyond are computed when they are sent.
const DIGESTS_KEPT_MAX: u64 = 4 << 20;

/// As the official clients send by default.
const TOTAL_TIMEOUT_MS: u32 = 1000;

/// Offset of the result code in a reply: after the protocol header, header size, info1 to info4.
pub const RESULT_AT: usize = PROTO_HEADER_BYTES + 5;

/// Bin that holds the key, where records have one to be queried by.
pub const INTEGER_BIN: &str = "n";

pub struct FrameShape<'a> {
    pub namespace: &'a str,
    pub set: &'a str,
    pub keys: u64,
    pub object_bytes: usize,
    pub bins: u16,
    /// Records have their key in [`INTEGER_BIN`].
    pub with_integer: bool,
    pub seed: u64,
}

/// A request whose digest, and key if it has one, are to be filled in.
struct Template {
    frame: Vec<u8>,
    digest_at: usize,
    key_at: Option<usize>,
}

/// In the place of the key.
const KEY_MARKER: [u8; 8] = *b"\xa5key\x00her";

impl Template {
    fn new(write: impl FnOnce(&mut Vec<u8>, &Digest)) -> Self {
        // A pattern that no name or generated value contains at this length.
        let marker: Digest = std::array::from_fn(|position| 0xA5 ^ (position as u8 * 13));
        let mut frame = Vec::new();
        write(&mut frame, &marker);
        let mut places = frame
            .windows(marker.len())
            .enumerate()
            .filter(|(_, it)| *it == marker);
        let (digest_at, _) = places.next().expect("the digest is in the frame");
        assert!(places.next().is_none(), "and only once");
        drop(places);
        let key_at = frame
            .windows(KEY_MARKER.len())
            .position(|it| it == KEY_MARKER);
        Self {
            frame,
            digest_at,
            key_at,
        }
    }

    fn append(&self, key: u64, digest: &Digest, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        frame[self.digest_at..][..digest.len()].copy_from_slice(digest);
        if let Some(at) = self.key_at {
            frame[at..][..size_of::<u64>()].copy_from_slice(&key.to_be_bytes());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Read,
    Write,
    /// One of those that were added, which change records too.
    Added(usize),
}

pub struct Frames {
    read: Template,
    write: Template,
    added: Vec<Template>,
    namespace: Vec<u8>,
    /// What a server answers to a read that finds the record, as far as its size matters.
    pub read_reply: Vec<u8>,
    pub write_reply: Vec<u8>,
    set: Vec<u8>,
    digests: Vec<Digest>,
    pub keys: u64,
}

impl Frames {
    pub fn new(shape: &FrameShape<'_>) -> Result<Self, BenchError> {
        check_name("namespace", shape.namespace, NAMESPACE_BYTES_MAX)?;
        check_name("set", shape.set, SET_BYTES_MAX)?;
        let bins = bins(shape);
        let begin = |frame: &mut Vec<u8>, header: RequestHeader, digest: &Digest, values: bool| {
            let header = RequestHeader {
                transaction_ttl: TOTAL_TIMEOUT_MS,
                ..header
            };
            let mut request = RequestWriter::begin(frame, header);
            request.field(field::NAMESPACE, shape.namespace.as_bytes());
            if !shape.set.is_empty() {
                request.field(field::SET, shape.set.as_bytes());
            }
            request.field(field::DIGEST, digest);
            for (name, value) in bins.iter().filter(|_| values) {
                request.op(op::WRITE, particle::BLOB, name.as_bytes(), value);
            }
            if values && shape.with_integer {
                let name = INTEGER_BIN.as_bytes();
                request.op(op::WRITE, particle::INTEGER, name, &KEY_MARKER);
            }
            request.finish();
        };
        let read_header = RequestHeader {
            info1: info1::READ | info1::GET_ALL,
            ..RequestHeader::default()
        };
        let write_header = RequestHeader {
            info2: info2::WRITE,
            ..RequestHeader::default()
        };
        let read = Template::new(|frame, digest| begin(frame, read_header, digest, false));
        let write = Template::new(|frame, digest| begin(frame, write_header, digest, true));

        let mut read_reply = Vec::new();
        let mut reply = ReplyWriter::begin(&mut read_reply);
        for (name, value) in &bins {
            reply.op(name.as_bytes(), particle::BLOB, value);
        }
        reply.finish(ResultCode::Ok, 1, 0);
        let mut write_reply = Vec::new();
        ReplyWriter::begin(&mut write_reply).finish(ResultCode::Ok, 1, 0);

        let set = shape.set.as_bytes().to_vec();
        let kept = shape.keys.min(DIGESTS_KEPT_MAX);
        let digests = (0..kept).map(|key| key_digest(&set, key)).collect();
        Ok(Self {
            read,
            write,
            added: Vec::new(),
            namespace: shape.namespace.as_bytes().to_vec(),
            read_reply,
            write_reply,
            set,
            digests,
            keys: shape.keys,
        })
    }

    /// Adds a request that changes one record: `rest` is what comes behind the digest.
    pub fn add(&mut self, rest: impl FnOnce(&mut RequestWriter<'_>)) -> Verb {
        let header = RequestHeader {
            info2: info2::WRITE,
            transaction_ttl: TOTAL_TIMEOUT_MS,
            ..RequestHeader::default()
        };
        let template = Template::new(|frame, digest| {
            let mut request = RequestWriter::begin(frame, header);
            request.field(field::NAMESPACE, &self.namespace);
            if !self.set.is_empty() {
                request.field(field::SET, &self.set);
            }
            request.field(field::DIGEST, digest);
            rest(&mut request);
            request.finish();
        });
        self.added.push(template);
        Verb::Added(self.added.len() - 1)
    }

    /// Appends the request `verb` on `key`.
    pub fn append(&self, verb: Verb, key: u64, out: &mut Vec<u8>) {
        let template = match verb {
            Verb::Read => &self.read,
            Verb::Write => &self.write,
            Verb::Added(number) => &self.added[number],
        };
        template.append(key, &self.digest(key), out);
    }

    pub fn digest(&self, key: u64) -> Digest {
        let kept = self.digests.get(key as usize).copied();
        kept.unwrap_or_else(|| key_digest(&self.set, key))
    }

    pub fn write_frame_bytes(&self) -> usize {
        self.write.frame.len()
    }

    pub fn read_frame_bytes(&self) -> usize {
        self.read.frame.len()
    }
}

fn check_name(what: &'static str, name: &str, bytes_max: usize) -> Result<(), BenchError> {
    match name.len() <= bytes_max {
        true => Ok(()),
        false => Err(BenchError::NameTooLong {
            what,
            name: name.to_owned(),
            bytes_max,
        }),
    }
}

fn key_digest(set: &[u8], key: u64) -> Digest {
    compute_digest(set, particle::INTEGER, &key.to_be_bytes())
}

/// Names and values: the object's bytes shared out, random so that no compression helps.
fn bins(shape: &FrameShape<'_>) -> Vec<(String, Vec<u8>)> {
    let mut random = Random::new(shape.seed);
    let count = usize::from(shape.bins);
    (0..count)
        .map(|number| {
            let bytes =
                shape.object_bytes / count + usize::from(number < shape.object_bytes % count);
            let name = format!("b{number}");
            assert!(name.len() <= BIN_NAME_BYTES_MAX);
            (name, (0..bytes).map(|_| random.next() as u8).collect())
        })
        .collect()
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): one seed,
/// one sequence.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[allow(
        clippy::should_implement_trait,
        reason = "an endless sequence is not iterated"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform below `bound`, by multiplication (its bias is below 2^-40 at any key count in
    /// reach).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perigee_wire::{Message, PROTO_HEADER_BYTES};

    const SHAPE: FrameShape<'static> = FrameShape {
        namespace: "test",
        set: "bench",
        keys: 1000,
        object_bytes: 100,
        bins: 3,
        with_integer: false,
        seed: 1,
    };

    #[test]
    fn a_request_differs_from_another_only_in_its_digest() {
        let frames = Frames::new(&SHAPE).unwrap();
        for verb in [Verb::Read, Verb::Write] {
            let (mut one, mut other) = (Vec::new(), b"before".to_vec());
            frames.append(verb, 7, &mut one);
            frames.append(verb, 8, &mut other);
            let other = &other[6..];
            assert_eq!(one.len(), other.len());
            let differing = (0..one.len()).filter(|&at| one[at] != other[at]);
            let differing: Vec<usize> = differing.collect();
            let at = frames.read.digest_at;
            assert!(
                differing.iter().all(|it| (at..at + 20).contains(it)),
                "{differing:?}"
            );
            assert_eq!(
                one[at..at + 20],
                compute_digest(b"bench", 1, &7u64.to_be_bytes())
            );
        }
    }

    #[test]
    fn a_write_carries_the_object_and_a_read_reply_gives_it_back() {
        let frames = Frames::new(&SHAPE).unwrap();
        let mut write = Vec::new();
        frames.append(Verb::Write, 0, &mut write);
        assert_eq!(write.len(), frames.write_frame_bytes());
        for frame in [&write, &frames.read_reply] {
            let (message, rest) = Message::parse_prefix(&frame[PROTO_HEADER_BYTES..]).unwrap();
            assert_eq!((message.ops.len(), rest.len()), (3, 0));
        }
        // Per bin of a read: the op's header and its name, twice two bytes long here.
        let bare = write.len() - frames.read_frame_bytes();
        assert_eq!(bare, frames.read_reply.len() - frames.write_reply.len());
        assert_eq!(bare, 100 + 3 * (8 + 2));
    }

    #[test]
    fn a_record_holds_its_key_where_it_is_asked_to() {
        let shape = FrameShape {
            with_integer: true,
            ..SHAPE
        };
        let frames = Frames::new(&shape).unwrap();
        let mut write = Vec::new();
        frames.append(Verb::Write, 77, &mut write);
        let message = Message::parse(&write[PROTO_HEADER_BYTES..]).unwrap();
        let last = message.ops.into_iter().last().unwrap();
        assert_eq!((last.name, last.particle), (&b"n"[..], particle::INTEGER));
        assert_eq!(last.value, 77u64.to_be_bytes());
    }

    #[test]
    fn keys_beyond_the_table_have_digests_too() {
        let mut frames = Frames::new(&SHAPE).unwrap();
        let mut kept = Vec::new();
        frames.append(Verb::Read, 999, &mut kept);
        frames.digests.truncate(10);
        let mut computed = Vec::new();
        frames.append(Verb::Read, 999, &mut computed);
        assert_eq!(kept, computed);
    }

    #[test]
    fn random_keys_reach_everything_and_nothing_else() {
        let mut random = Random::new(42);
        let mut seen = [0u32; 10];
        (0..10_000).for_each(|_| seen[random.below(10) as usize] += 1);
        assert!(
            seen.iter().all(|&count| (800..1200).contains(&count)),
            "{seen:?}"
        );
    }
}
