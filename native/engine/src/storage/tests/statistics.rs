//! What a store says of itself and of each of its devices.

use super::*;

#[test]
fn each_device_tells_its_own_figures_and_the_failed_one_says_so() {
    let disks: Vec<Arc<FaultyMedium>> = (0..2).map(|seed| disk(16, seed)).collect();
    let media = disks.iter().map(|disk| disk.clone() as _).collect();
    let named = StoreConfig {
        medium: MediumConfig::File {
            paths: vec!["first".into(), "second".into()],
            file_size: 0,
        },
        post_write_cache_bytes: 0,
        ..config()
    };
    let (node, _) = Node::open(named, media);
    for version in 1..6 {
        for key in 0..100 {
            node.put_patiently(key, version, 600).unwrap();
        }
    }
    node.store.drain().unwrap();
    node.wait_until("compaction", |stats| stats.defrag_queue_blocks == 0);
    node.store.drain().unwrap();
    let [first, second] = <[_; 2]>::try_from(node.store.device_stats()).unwrap();
    let total = node.store.stats();
    assert_eq!((first.kind, second.kind), ("file", "file"));
    assert_eq!(first.path.as_deref(), Some(Path::new("first")));
    assert_eq!(second.path.as_deref(), Some(Path::new("second")));
    assert_eq!(first.used_bytes + second.used_bytes, total.used_bytes);
    assert_eq!(first.free_wblocks + second.free_wblocks, total.free_blocks);
    assert_eq!(first.defrag_reads + second.defrag_reads, total.defrag_reads);
    for device in [&first, &second] {
        // 250 images of 656 bytes or so are ten blocks or more.
        assert!(device.writes >= 10, "{device:?}");
        assert!(device.partial_writes > 0, "{device:?}");
        assert_eq!((device.write_q, device.read_errors), (0, 0));
        assert!(device.failure.is_none());
    }
    assert!(total.write_amplification() >= 1.0);
    let share =
        total.defrag_write_bytes as f64 / (total.write_bytes + total.defrag_write_bytes) as f64;
    assert_eq!(total.defrag_write_share(), share);

    let on_second = |held: &&Held| held.location.device() == 1;
    let victim = *node.map.lock().values().find(on_second).unwrap();
    disks[1].inject(Fault::FailRead {
        offset: victim.location.offset(),
    });
    let mut buffer = AlignedBuf::default();
    let read = node.store.read_device(victim.location, &mut buffer);
    assert!(read.is_err());
    disks[1].inject(Fault::FailWrite { nth: 1 });
    for key in 0..10 {
        let _ = node.put(key, 9, 100);
    }
    assert!(node.store.drain().is_err());
    let [first, second] = <[_; 2]>::try_from(node.store.device_stats()).unwrap();
    assert!(first.failure.is_none());
    // A compaction may have met the page too.
    assert_eq!(first.read_errors, 0);
    assert!((1..=2).contains(&second.read_errors), "{second:?}");
    let failure = second.failure.unwrap().to_string();
    // The write of a block, or the erasure of one that compaction emptied.
    assert!(failure.starts_with("device 1: "), "{failure}");
}

#[test]
fn memory_alone_is_a_stripe_whose_copies_count_as_written() {
    let memory = StoreConfig {
        medium: MediumConfig::Memory {
            data_size: (10 * BLOCK_BYTES) as u64,
        },
        ..config()
    };
    let (node, _) = Node::started(Store::open(memory).unwrap());
    assert_eq!(node.store.stats().write_amplification(), 0.0);
    let mut random = Random(6);
    for version in 0..2000 {
        node.put_patiently(random.below(60) as Key, version, 700)
            .unwrap();
    }
    let [stripe] = <[_; 1]>::try_from(node.store.device_stats()).unwrap();
    assert_eq!((stripe.kind, stripe.path), ("stripe", None));
    assert!(stripe.writes > 80);
    let stats = node.store.stats();
    assert_eq!(stats.flush_bytes, 0);
    let expected = 1.0 + stats.defrag_write_bytes as f64 / stats.write_bytes as f64;
    assert!((stats.write_amplification() - expected).abs() < 1e-9);
    assert!(stats.defrag_write_share() > 0.0);
}
