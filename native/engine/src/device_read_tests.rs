//! Requests whose record must be read from a device, on real files.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use perigee_wire::{Message, PROTO_HEADER_BYTES, RequestHeader, info1};

use crate::config::StorageConfig;
use crate::index::Location;
use crate::namespace::Namespace;
use crate::request::{Outcome, Request};
use crate::storage::AlignedBuf;
use crate::testing::{
    TempDirectory, counter, delete, digest, file_config, get, int_bin, open, put_int, request,
    try_frame,
};

/// A namespace with records `k1` and `k2` that lie on the device alone, and stay where they are.
fn on_device(directory: &TempDirectory) -> Arc<Namespace> {
    let mut config = file_config(directory);
    if let StorageConfig::Device { common, .. } = &mut config.storage_engine {
        common.defrag_lwm_pct = 0.into();
    }
    let namespace = open(config.clone(), vec![]);
    put_int(&namespace, "k1", "n", 1);
    put_int(&namespace, "k2", "n", 2);
    namespace.store.drain().unwrap();
    namespace.store.close();
    // What was found by a scan is not in memory.
    open(config, vec![])
}

fn get_frame(key: &str) -> Vec<u8> {
    let header = RequestHeader {
        info1: info1::READ | info1::GET_ALL,
        ..RequestHeader::default()
    };
    request(key, header, |_| {})
}

fn location_of(namespace: &Namespace, key: &str) -> Location {
    match try_frame(namespace, &get_frame(key), None, &mut Vec::new()) {
        Outcome::ReadDevice(location) => location,
        _ => panic!("the record is in memory"),
    }
}

fn damage(directory: &TempDirectory, location: Location) {
    let path = directory.0.join("test.dat");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xA5], location.offset() + 40).unwrap();
}

#[test]
fn a_damaged_record_is_lost_and_counted_and_others_are_read() {
    let directory = TempDirectory::new("damaged-record");
    let namespace = on_device(&directory);
    let location = location_of(&namespace, "k1");
    damage(&directory, location);
    let frame = get_frame("k1");
    let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).unwrap();
    let unread_digest = &digest("k1");
    let mut buffer = AlignedBuf::default();
    for reads in 1..=2 {
        let unread = namespace.read_device(location, &mut buffer).err().unwrap();
        assert!(unread.damaged, "{unread:?}");
        assert!(namespace.is_lost(unread_digest, &unread));
        let read = Request::new(&message, unread_digest);
        namespace.answer_unread(&read, &mut Vec::new());
        assert_eq!(counter(&namespace, "client_read_error"), reads);
        let stats = namespace.store.stats();
        assert_eq!((stats.damaged, stats.read_errors), (1, 0), "once a block");
    }
    assert_eq!(get(&namespace, "k2").bins, [int_bin("n", 2)]);
    assert_eq!(namespace.store.stats().device_reads, 3);
}

#[test]
fn a_read_that_fails_means_nothing_once_the_record_has_moved() {
    let directory = TempDirectory::new("moved-record");
    let namespace = on_device(&directory);
    let location = location_of(&namespace, "k1");
    damage(&directory, location);
    let mut buffer = AlignedBuf::default();
    let unread = namespace.read_device(location, &mut buffer).err().unwrap();
    delete(&namespace, "k1");
    put_int(&namespace, "k1", "n", 9);
    assert!(!namespace.is_lost(&digest("k1"), &unread));
    assert_eq!(get(&namespace, "k1").bins, [int_bin("n", 9)]);
    assert_eq!(counter(&namespace, "client_read_error"), 0);
    assert_eq!(namespace.store.stats().damaged, 0);
}
