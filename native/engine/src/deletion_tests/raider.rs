//! What the tomb raider reclaims, and what it leaves.

use super::*;
use crate::change_queue::Confirmation;
use crate::storage::medium::Fault;
use crate::testing::{put_int, site_at};

fn tombstones(node: &Node) -> i64 {
    node.namespace.tombstones.load(Ordering::Relaxed)
}

/// Puts a record and deletes it durably, its versions in blocks of their own: `old` and `new`.
fn deleted(node: &Node) {
    node.put("k", 1, ttl::NEVER);
    node.fill_block("old");
    assert_eq!(node.durable_delete("k"), ResultCode::Ok);
    node.fill_block("new");
}

fn raid(node: &Node) -> u64 {
    node.namespace.raid_tombstones(&|| false)
}

#[test]
fn a_tombstone_goes_when_it_is_old_enough_and_the_last_older_record_has_gone() {
    for seed in [1, 3] {
        let mut node = Node::new(24, seed);
        deleted(&node);
        node.pass(10);
        assert_eq!(raid(&node), 0, "the record lies on the device");
        assert_eq!(tombstones(&node), 1);
        node.empty_block("old");
        assert_eq!((raid(&node), tombstones(&node)), (1, 0));
        node.reopen();
        assert_eq!(node.value("k"), None);
    }
}

#[test]
fn a_young_tombstone_and_one_dated_ahead_stay() {
    let node = Node::new(24, 1);
    deleted(&node);
    node.empty_block("old");
    node.pass(4);
    assert_eq!(raid(&node), 0, "not five seconds old");
    node.pass(2);
    node.time.fetch_sub(3_600_000, Ordering::Relaxed);
    assert_eq!(raid(&node), 0, "dated an hour ahead");
    node.time.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(raid(&node), 1);
}

#[test]
fn a_tombstone_stays_while_the_record_waits_in_a_block_to_be_erased() {
    let node = Node::new(24, 1);
    deleted(&node);
    node.pass(10);
    // Blocks are not erased while the device holds its writes back.
    node.disk.hold();
    for i in 0..2 {
        delete(&node.namespace, &format!("old{i}"));
    }
    let retired = node.namespace.store.stats().retired_blocks;
    let raided = raid(&node);
    node.disk.let_go();
    assert_eq!((retired, raided), (1, 0));
    while node.namespace.store.stats().retired_blocks > 0 {
        node.drain();
    }
    assert_eq!(raid(&node), 1);
}

#[test]
fn a_record_in_the_block_that_is_being_written_is_met() {
    for seed in [1, 3] {
        let node = Node::new(24, seed);
        node.disk.hold();
        node.put("k", 1, ttl::NEVER);
        assert_eq!(node.durable_delete("k"), ResultCode::Ok);
        node.pass(10);
        let raided = raid(&node);
        node.disk.let_go();
        assert_eq!((raided, tombstones(&node)), (0, 1));
    }
}

#[test]
fn a_block_that_cannot_be_read_keeps_every_tombstone_of_its_device() {
    let node = Node::new(24, 1);
    deleted(&node);
    node.empty_block("old");
    node.pass(10);
    let other = digest("new0");
    let entry = node.namespace.partition(&other).lock().table.get(&other);
    let offset = entry.expect("a record").location.offset();
    node.disk.inject(Fault::FailRead { offset });
    assert_eq!((raid(&node), tombstones(&node)), (0, 1));
    let incomplete = &node.namespace.tomb_raider.incomplete;
    assert_eq!(incomplete.load(Ordering::Relaxed), 1);
    node.disk.restart();
    assert_eq!(raid(&node), 1);
}

#[test]
fn a_pass_that_is_stopped_removes_nothing_and_leaves_nothing_to_the_next() {
    let node = Node::new(24, 1);
    deleted(&node);
    node.pass(10);
    let asked = std::cell::Cell::new(0);
    // Past the marking of all partitions, and before the record is met.
    let stop = || asked.replace(asked.get() + 1) > 4096;
    assert_eq!(node.namespace.raid_tombstones(&stop), 0);
    assert_eq!(raid(&node), 0, "an old mark counts for nothing");
    assert_eq!(tombstones(&node), 1);
}

/// A write took the tombstone's place while the devices were walked, and was deleted again.
#[test]
fn a_mark_belongs_to_one_version() {
    let node = Node::new(24, 1);
    deleted(&node);
    node.empty_block("old");
    node.pass(10);
    let asked = std::cell::Cell::new(0);
    let stop = || {
        if asked.replace(asked.get() + 1) == 4096 + 20 {
            node.put("k", 2, ttl::NEVER);
            assert_eq!(node.durable_delete("k"), ResultCode::Ok);
            node.pass(10);
        }
        false
    };
    assert_eq!(node.namespace.raid_tombstones(&stop), 0);
    assert!(asked.get() > 4096 + 20);
    assert!(node.is_tombstone("k"));
}

#[test]
fn a_tombstone_that_a_datacenter_has_not_heard_of_stays() {
    let config = namespace_config();
    config.tomb_raider_eligible_age.set(5);
    let time = Arc::new(AtomicU64::new(START_MS));
    let (east, to_west) = site_at(config, 64, HybridClock::given(time.clone()));
    put_int(&east, "k", "n", 1);
    delete(&east, "k");
    time.fetch_add(10_000, Ordering::Relaxed);
    assert_eq!(east.raid_tombstones(&|| false), 0);
    let mut batch = Vec::new();
    assert_eq!(to_west.take(&mut batch, 1 << 20, 10), 1);
    assert_eq!(east.raid_tombstones(&|| false), 0, "in flight");
    let token = u64::from_le_bytes(batch[12..20].try_into().expect("a token"));
    to_west.confirm(token, Confirmation::Shipped);
    assert_eq!(east.raid_tombstones(&|| false), 1);
}
