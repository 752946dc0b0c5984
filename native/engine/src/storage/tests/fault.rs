//! Commits, and devices that fail or fall behind.

use super::*;

fn waiter(request: u64) -> CommitWaiter {
    CommitWaiter { thread: 0, request }
}

/// Appends and registers for the commit, which a flush by age may have done already.
fn put_waiting(node: &Node, key: Key, request: u64) {
    let ticket = node.put(key, request, 100).unwrap();
    if node.store.await_commit(ticket, waiter(request)) {
        node.acks.committed(waiter(request), Ok(()));
    }
}

#[test]
fn commit_is_told_only_after_the_sync() {
    let disk = disk(8, 1);
    let (node, _) = Node::open(
        StoreConfig {
            flush_max: Duration::from_secs(3600),
            ..committing()
        },
        vec![disk.clone()],
    );
    let syncs = disk.syncs();
    disk.hold();
    put_waiting(&node, 1, 1);
    // The write is held back.
    disk.wait_until_held();
    put_waiting(&node, 2, 2);
    assert!(node.acks.told.lock().is_empty());
    assert_eq!(disk.syncs(), syncs);
    disk.let_go();
    assert!(node.acks.wait(1));
    assert!(disk.syncs() > syncs);
    assert!(node.acks.wait(2), "the next group follows by itself");
    disk.cut_power();
    disk.restart();
    let (reopened, _) = Node::open(committing(), vec![disk]);
    assert_eq!(reopened.versions(), node.versions());
}

#[test]
fn writes_that_come_during_a_sync_share_the_next_one() {
    let disk = disk(16, 1);
    let (node, _) = Node::open(
        StoreConfig {
            flush_max: Duration::from_secs(3600),
            ..committing()
        },
        vec![disk.clone()],
    );
    disk.hold();
    put_waiting(&node, 0, 1);
    disk.wait_until_held();
    for request in 2..=50 {
        put_waiting(&node, request as Key, request);
    }
    let syncs = disk.syncs();
    disk.let_go();
    assert!((1..=50).all(|request| node.acks.wait(request)));
    assert_eq!(disk.syncs() - syncs, 2);
}

/// Tells how many retired blocks there were when a commit was told.
struct RetiredAtCommit {
    store: std::sync::Weak<Store>,
    retired: std::sync::mpsc::Sender<u64>,
}

impl CommitSink for RetiredAtCommit {
    fn committed(&self, _: CommitWaiter, outcome: Result<(), DeviceError>) {
        outcome.unwrap();
        let stats = self.store.upgrade().unwrap().stats();
        self.retired.send(stats.retired_blocks).unwrap();
    }
}

/// Erasing the thousands of blocks that a truncation leaves took seconds, in which no commit was told.
#[test]
fn commit_waits_for_one_batch_of_erasures_and_not_for_all() {
    const RETIRED: usize = 3 * flush::ERASE_BLOCKS_MAX;
    let disk = disk(RETIRED + 8, 1);
    let lazy = StoreConfig {
        flush_max: Duration::from_secs(3600),
        post_write_cache_bytes: 1 << 30,
        ..committing()
    };
    let (node, _) = Node::scanned(Store::open_on(lazy, vec![disk.clone()]).unwrap());
    let (sender, retired) = std::sync::mpsc::channel();
    let store = Arc::downgrade(&node.store);
    let mover = Mover {
        store: store.clone(),
        map: Arc::clone(&node.map),
    };
    let sink = RetiredAtCommit {
        store,
        retired: sender,
    };
    node.store.start(Arc::new(mover), Arc::new(sink));
    for key in 0..=RETIRED {
        node.put_patiently(key as Key, 1, 9000).unwrap();
    }
    node.store.drain().unwrap();
    // An erasure is held back in its first write while the commit comes.
    disk.hold();
    (0..RETIRED).for_each(|key| node.remove(key as Key));
    disk.wait_until_held();
    let ticket = node.put(RETIRED as Key, 2, 100).unwrap();
    assert!(!node.store.await_commit(ticket, waiter(1)));
    disk.let_go();
    let left = retired.recv().unwrap() as usize;
    assert!(left >= RETIRED - flush::ERASE_BLOCKS_MAX, "{left} left");
    node.wait_until("freeing", |stats| stats.retired_blocks == 0);
    node.check_used_bytes();
}

#[test]
fn durable_ticket_and_volatile_store_wait_for_nothing() {
    let (node, _) = Node::open(committing(), vec![disk(8, 1)]);
    let ticket = node.put(1, 1, 100).unwrap();
    node.store.drain().unwrap();
    assert!(node.store.await_commit(ticket, waiter(1)));

    let (node, _) = Node::open(config(), vec![disk(8, 1)]);
    let ticket = node.put(1, 1, 100).unwrap();
    assert!(node.store.await_commit(ticket, waiter(1)));
}

#[test]
fn first_failure_latches_the_device_and_reads_go_on() {
    for fault in [
        Fault::FailWrite { nth: 1 },
        Fault::ShortWrite { nth: 1 },
        Fault::FailSync { nth: 1 },
    ] {
        let disk = disk(8, 1);
        let (node, _) = Node::open(committing(), vec![disk.clone()]);
        put_waiting(&node, 1, 1);
        assert!(node.acks.wait(1));
        disk.inject(fault);
        put_waiting(&node, 2, 2);
        assert!(!node.acks.wait(2), "{fault:?} is told");
        assert_eq!(node.put(3, 3, 100), Err(AppendError::DeviceFailed));
        assert!(node.store.drain().is_err());
        node.read_all();
        let stats = node.store.stats();
        assert_eq!((stats.failed_devices, stats.write_errors), (1, 1));

        disk.restart();
        let (reopened, _) = Node::open(committing(), vec![disk]);
        assert_eq!(
            reopened.version(1),
            Some(1),
            "{fault:?} leaves what was acknowledged"
        );
    }
}

#[test]
fn commit_awaited_after_a_failed_store_closed_is_told_to_have_failed() {
    let disk = disk(8, 1);
    let (node, _) = Node::open(committing(), vec![disk.clone()]);
    disk.inject(Fault::FailWrite { nth: 1 });
    let lost = node.put(1, 1, 100).unwrap();
    node.wait_until("failure", |stats| stats.failed_devices == 1);
    assert!(!node.store.await_commit(lost, waiter(1)));
    assert!(!node.acks.wait(1), "by the flush thread");
    node.store.close();
    assert!(!node.store.await_commit(lost, waiter(2)));
    assert!(!node.acks.wait(2), "without it");
}

#[test]
fn durable_commit_is_known_to_be_after_the_store_closed() {
    let (node, _) = Node::open(committing(), vec![disk(8, 1)]);
    let ticket = node.put(1, 1, 100).unwrap();
    node.store.close();
    assert!(node.store.await_commit(ticket, waiter(1)));
    assert!(node.acks.told.lock().is_empty());
}

struct PanicsOnce(AtomicBool, Arc<Acks>);

impl CommitSink for PanicsOnce {
    fn committed(&self, waiter: CommitWaiter, outcome: Result<(), DeviceError>) {
        assert!(self.0.swap(true, Ordering::Relaxed), "as it is meant to");
        self.1.committed(waiter, outcome);
    }
}

#[test]
fn flush_thread_that_panics_fails_the_device_and_leaves_no_waiter_untold() {
    let (node, _) = Node::scanned(Store::open_on(committing(), vec![disk(8, 1)]).unwrap());
    let mover = Mover {
        store: Arc::downgrade(&node.store),
        map: Arc::clone(&node.map),
    };
    let sink = PanicsOnce(AtomicBool::new(false), Arc::clone(&node.acks));
    let sink: Arc<dyn CommitSink> = Arc::new(sink);
    node.store.start(Arc::new(mover), Arc::clone(&sink));
    let device = &node.store.devices[0];
    // Both are there before the flush thread looks.
    let mut state = device.state.lock();
    state.waiters.push((0, waiter(1)));
    state.waiters.push((u64::MAX, waiter(2)));
    device.work.notify_one();
    drop(state);
    assert!(!node.acks.wait(2), "told while it ends");
    assert_eq!(node.put(1, 1, 100), Err(AppendError::DeviceFailed));
    assert!(node.store.drain().is_err());
}

#[test]
fn torn_tail_reads_as_absent() {
    for seed in 0..50 {
        let disk = disk(8, seed);
        // The torn write is to be that of the record, not of a copy.
        let calm = StoreConfig {
            defrag_lwm_pct: 0,
            ..committing()
        };
        let (node, _) = Node::open(calm, vec![disk.clone()]);
        for request in 1..=5 {
            put_waiting(&node, request as Key, request);
            assert!(node.acks.wait(request));
        }
        disk.inject(Fault::TornWrite { nth: 1 });
        let ticket = node.put(9, 9, 3000).unwrap();
        assert!(!node.store.await_commit(ticket, waiter(9)));
        assert!(!node.acks.wait(9));
        disk.restart();
        // Absent, or whole if every sector of it was written.
        let (reopened, _) = Node::open(committing(), vec![disk]);
        assert!(matches!(reopened.version(9), None | Some(9)));
        reopened.read_all();
        for key in 1..=5 {
            assert_eq!(reopened.version(key), Some(key as u64), "seed {seed}");
        }
    }
}

#[test]
fn blocks_that_wait_for_a_slow_device_are_bounded() {
    let disk = disk(32, 1);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    disk.hold();
    let mut appended = 0;
    let refused = loop {
        match node.put(appended, 1, 1000 - OVERHEAD_BYTES) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Overload);
    // Four filled blocks, and the open one.
    assert_eq!(node.store.stats().write_queue_blocks, 4);
    assert_eq!(appended as usize, 5 * ((BLOCK_BYTES - 32) / 1008));
    node.read_all();
    disk.let_go();
    node.put_patiently(9999, 1, 100).unwrap();
    node.store.drain().unwrap();
    assert_eq!(node.store.stats().write_queue_blocks, 0);
}

#[test]
fn record_is_read_from_buffer_then_cache_then_device() {
    let disk = disk(16, 1);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    node.put(0, 1, 1000).unwrap();
    assert_eq!(node.read(0), Some(1));
    for key in 1..15 {
        node.put(key, 1, 1000).unwrap();
    }
    node.store.drain().unwrap();
    assert_eq!(node.read(0), Some(1));
    assert_eq!(node.store.stats().device_reads, 0);
    for key in 20..90 {
        node.put_patiently(key, 1, 1000).unwrap();
    }
    node.store.drain().unwrap();
    assert_eq!(node.store.stats().post_write_cache_blocks, 2);
    assert_eq!(node.read(0), Some(1));
    assert_eq!(node.store.stats().device_reads, 1);

    let location = node.map.lock()[&0].location;
    let mut buffer = AlignedBuf::default();
    disk.inject(Fault::FlipBit {
        offset: location.offset() + 50,
        bit: 0,
    });
    assert!(matches!(
        node.store.read_device(location, &mut buffer),
        Err(ReadError::Corrupt { .. })
    ));
    disk.inject(Fault::FailRead {
        offset: location.offset() + 50,
    });
    assert!(matches!(
        node.store.read_device(location, &mut buffer),
        Err(ReadError::Io { .. })
    ));
}

#[test]
fn unwritten_bytes_are_written_when_they_are_old_enough() {
    let disk = disk(8, 1);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    let before = disk.syncs();
    node.put(1, 1, 100).unwrap();
    // The bytes are counted once the sync has come back, so both are waited for.
    let padded = node.wait_until("flush by age", |stats| {
        disk.syncs() > before && stats.flush_bytes > 0
    });
    assert_eq!(padded.flush_bytes, 4096);
    disk.cut_power();
    disk.restart();
    let (reopened, _) = Node::open(config(), vec![disk]);
    assert_eq!(reopened.version(1), Some(1));
}
