//! Memory with a device behind it: read from memory, written to both.

use super::*;

fn in_memory(config: StoreConfig) -> StoreConfig {
    StoreConfig {
        in_memory: true,
        post_write_cache_bytes: 0,
        // A copy that power cuts short looks like damage.
        defrag_lwm_pct: 0,
        ..config
    }
}

#[test]
fn reads_come_from_memory_and_writes_outlast_a_power_cut() {
    for in_memory_again in [true, false] {
        let disk = disk(16, 1);
        let (node, _) = Node::open(in_memory(committing()), vec![disk.clone()]);
        for version in 1..4 {
            for key in 0..60 {
                node.put_patiently(key, version, 700).unwrap();
            }
        }
        let ticket = node.put_patiently(7, 9, 300).unwrap();
        let waiter = CommitWaiter {
            thread: 0,
            request: 1,
        };
        assert!(node.store.await_commit(ticket, waiter) || node.acks.wait(1));
        node.store.drain().unwrap();
        node.read_all();
        let stats = node.store.stats();
        assert_eq!(stats.device_reads, 0);
        assert_eq!(stats.post_write_cache_blocks, 0);
        assert!(stats.flush_bytes > 0 && stats.syncs > 0);
        disk.cut_power();
        disk.restart();
        let again = StoreConfig {
            in_memory: in_memory_again,
            ..in_memory(committing())
        };
        let (reopened, report) = Node::open(again, vec![disk]);
        assert_eq!(reopened.versions(), node.versions());
        assert_eq!(report.damaged, 0);
        reopened.read_all();
        let from_device = reopened.store.stats().device_reads;
        assert_eq!(from_device == 0, in_memory_again, "{from_device} reads");
        reopened.check_used_bytes();
    }
}

#[test]
fn failed_device_takes_no_writes_and_memory_goes_on_being_read() {
    let disk = disk(8, 1);
    let (node, _) = Node::open(in_memory(config()), vec![disk.clone()]);
    for key in 0..20 {
        node.put(key, 1, 100).unwrap();
    }
    disk.inject(Fault::FailWrite { nth: 1 });
    assert!(node.store.drain().is_err());
    assert_eq!(node.put(1, 2, 100), Err(AppendError::DeviceFailed));
    node.read_all();
    assert_eq!(node.version(1), Some(1));
    assert_eq!(node.store.stats().failed_devices, 1);
}

#[test]
fn unreadable_page_at_opening_costs_only_its_records() {
    let disk = disk(8, 5);
    let (node, _) = Node::open(in_memory(config()), vec![disk.clone()]);
    for key in 0..100 {
        node.put(key, 1, 200).unwrap();
    }
    node.store.drain().unwrap();
    let victim = node.map.lock()[&30].location;
    node.store.close();
    disk.inject(Fault::FailRead {
        offset: victim.offset(),
    });
    let (reopened, report) = Node::open(in_memory(config()), vec![disk]);
    assert_eq!((report.read_errors, report.damaged), (1, 1));
    assert_eq!(reopened.version(30), None);
    assert!(reopened.versions().len() > 70);
    reopened.read_all();
    reopened.check_used_bytes();
}
