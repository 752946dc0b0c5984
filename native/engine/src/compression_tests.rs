//! Namespaces that compress, by frames.

use perigee_wire::{ResultCode, op, particle_type as particle};

use crate::config::{NamespaceConfig, StorageConfig};
use crate::index::flag;
use crate::record::compression::tests::{COMPRESSED, PREPARED};
use crate::record::compression::{CompressionKind, inflate};
use crate::record::image::{ImageBuilder, ImageHeader, ImageView, image_flag};
use crate::secondary_index::Indexed;
use crate::storage::AlignedBuf;
use crate::testing::{
    Reply, TempDirectory, delete, digest, file_config, get, namespace_config, open, put_int,
    request, run_frame, site_on, write,
};

fn compressing(mut config: NamespaceConfig, with: CompressionKind) -> NamespaceConfig {
    let (StorageConfig::Memory { common, .. } | StorageConfig::Device { common }) =
        &mut config.storage_engine;
    common.compression = with.into();
    // So that reads come from the device, where there is one.
    common.post_write_cache = 0;
    config
}

fn text(value: &str) -> Vec<u8> {
    value.repeat(100).into_bytes()
}

fn string_op(
    namespace: &crate::namespace::Namespace,
    key: &str,
    operation: u8,
    value: &[u8],
) -> ResultCode {
    let frame = request(key, write(0, 0), |w| {
        w.op(operation, particle::STRING, b"s", value);
    });
    run_frame(namespace, &frame).code
}

fn stored_bytes(namespace: &crate::namespace::Namespace, key: &str) -> usize {
    let digest = digest(key);
    let entry = namespace.partition(&digest).lock().table.get(&digest);
    entry.expect("a record").location.bytes()
}

fn string_of(reply: &Reply) -> &[u8] {
    assert_eq!(reply.code, ResultCode::Ok);
    let bin = reply.bins.iter().find(|(name, ..)| name == "s");
    &bin.expect("the bin").2
}

#[test]
fn compressed_records_are_read_changed_and_kept_over_a_change_of_the_setting() {
    use CompressionKind::{Lz4, None, Zstd};
    let directory = TempDirectory::new("compression");
    let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
    for (round, with) in [Zstd, None, Lz4, Zstd].into_iter().enumerate() {
        let ns = open(compressing(file_config(&directory), with), vec![]);
        for (key, value) in &expected {
            assert_eq!(string_of(&get(&ns, key)), value, "round {round} {key}");
        }
        for (key, value) in &mut expected {
            assert_eq!(string_op(&ns, key, op::APPEND, b"more"), ResultCode::Ok);
            value.extend_from_slice(b"more");
        }
        let key = format!("k{round}");
        assert_eq!(
            string_op(&ns, &key, op::WRITE, &text("perigee ")),
            ResultCode::Ok
        );
        assert_eq!(stored_bytes(&ns, &key) < 400, with != None);
        let ratio = ns.stats.compression_ratio();
        assert_eq!(ratio < 0.5, with != None, "{ratio}");
        expected.push((key, text("perigee ")));
        ns.store.drain().expect("a file that works");
        for (key, value) in &expected {
            assert_eq!(string_of(&get(&ns, key)), value, "round {round} {key}");
        }
        ns.store.close();
    }
}

#[test]
fn the_largest_record_counts_before_compression() {
    let ns = open(
        compressing(namespace_config(), CompressionKind::Lz4),
        vec![],
    );
    let large = vec![b'x'; 40 << 10];
    assert_eq!(
        string_op(&ns, "k", op::WRITE, &large),
        ResultCode::RecordTooBig
    );
    assert_eq!(
        string_op(&ns, "k", op::WRITE, &large[..30 << 10]),
        ResultCode::Ok
    );
    assert!(stored_bytes(&ns, "k") < 1000);
    assert_eq!(ns.store.stats().used_bytes, stored_bytes(&ns, "k") as u64);
}

#[test]
fn compressed_records_ship_in_full_and_tombstones_stay_as_they_are() {
    let (east, to_west) = site_on(compressing(namespace_config(), CompressionKind::Zstd), 64);
    assert_eq!(
        string_op(&east, "k", op::WRITE, &text("perigee ")),
        ResultCode::Ok
    );
    put_int(&east, "gone", "n", 1);
    delete(&east, "gone");
    let mut batch = Vec::new();
    assert_eq!(to_west.take(&mut batch, 1 << 20, 10), 2);
    let shipped = text("perigee ");
    assert!(batch.windows(shipped.len()).any(|part| part == shipped));
}

/// Before the partition is locked, and not again under its lock: a new record, one that is changed or replaced in memory,
/// one that has to be read first. What is refused is not compressed at all.
#[test]
fn a_write_compresses_once() {
    let directory = TempDirectory::new("compressed-once");
    let config = || compressing(file_config(&directory), CompressionKind::Lz4);
    let ns = open(config(), vec![]);
    let compressed = |ns: &crate::namespace::Namespace, operation: u8, value: &[u8]| {
        let before = (COMPRESSED.get(), PREPARED.get());
        assert_eq!(string_op(ns, "k", operation, value), ResultCode::Ok);
        assert_eq!(PREPARED.get() - before.1, 1);
        COMPRESSED.get() - before.0
    };
    let mut value = text("perigee ");
    assert_eq!(compressed(&ns, op::WRITE, &value), 1);
    assert_eq!(compressed(&ns, op::APPEND, b"more"), 1);
    ns.store.close();
    drop(ns);
    let ns = open(config(), vec![]);
    let reads = ns.store.stats().device_reads;
    assert_eq!(compressed(&ns, op::APPEND, b"more"), 1);
    assert!(ns.store.stats().device_reads > reads);
    value.extend_from_slice(b"moremore");
    assert_eq!(string_of(&get(&ns, "k")), value);
    let create_only = write(perigee_wire::info2::CREATE_ONLY, 0);
    let frame = request("k", create_only, |w| {
        w.op(op::WRITE, particle::STRING, b"s", &value);
    });
    let before = COMPRESSED.get();
    assert_eq!(run_frame(&ns, &frame).code, ResultCode::RecordExists);
    assert_eq!(COMPRESSED.get(), before);
    ns.store.close();
}

/// Inflated once: to be checked, and not again to be used.
#[test]
fn a_copy_from_the_device_is_plain() {
    let directory = TempDirectory::new("compressed-copy");
    for with in [CompressionKind::Lz4, CompressionKind::Zstd] {
        let ns = open(compressing(file_config(&directory), with), vec![]);
        let value = text("perigee ");
        assert_eq!(string_op(&ns, "k", op::WRITE, &value), ResultCode::Ok);
        ns.store.drain().expect("a file that works");
        let digest = digest("k");
        let entry = ns.partition(&digest).lock().table.get(&digest);
        let entry = entry.expect("a record");
        assert!(entry.location.bytes() < value.len());
        let mut buffer = AlignedBuf::default();
        let copy = ns.read_device(entry.location, &mut buffer);
        let copy = copy.expect("a whole image").into_owned();
        let image = copy.image_of(&entry).expect("of this version");
        assert_eq!(image.flags() & image_flag::COMPRESSED, 0);
        assert_eq!(image.bins().next().expect("the bin").value, value);
        let newer = crate::index::Entry {
            generation: entry.generation + 1,
            ..entry
        };
        assert!(copy.image_of(&newer).is_none());
        ns.store.close();
    }
}

/// The checksum holds, so only inflating tells; the request must end, and not be read again for ever.
#[test]
fn a_compressed_block_that_does_not_inflate_is_damage() {
    let directory = TempDirectory::new("inflate");
    let ns = open(
        compressing(file_config(&directory), CompressionKind::None),
        vec![],
    );
    let digest = digest("k");
    let header = ImageHeader {
        digest,
        last_update_time: ns.clock.now(),
        generation: 1,
        void_time: 0,
        flags: 0,
    };
    let mut image = Vec::new();
    let mut builder = ImageBuilder::begin(&mut image, &header, b"demo", None);
    builder.bin(b"s", particle::STRING, &[0xff; 200]);
    builder.finish();
    crate::record::image::add_flags(&mut image, image_flag::COMPRESSED);
    assert!(inflate(&ImageView::trusted(&image), &mut Vec::new()).is_err());
    let entry = {
        let mut state = ns.partition(&digest).lock();
        let set = ns.sets.id_of(b"demo").expect("a set");
        ns.commit(&mut state, None, Indexed::default(), &mut image, set)
            .expect("stored");
        state.table.get(&digest).expect("an entry")
    };
    assert_eq!(entry.flags & flag::TOMBSTONE, 0);
    ns.store.drain().expect("a file that works");
    let mut buffer = AlignedBuf::default();
    let unread = ns
        .read_device(entry.location, &mut buffer)
        .err()
        .expect("damage");
    assert!(unread.damaged, "{}", unread.reason);
    let mut state = ns.partition(&digest).lock();
    assert_eq!(ns.with_image(&entry, None, |_| ()), Err(entry.location));
    assert!(ns.drop_entry(&mut state, &entry));
}
