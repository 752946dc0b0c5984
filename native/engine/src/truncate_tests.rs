//! Truncation as clients, restarts and other sites see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use perigee_wire::{
    RequestHeader, RequestWriter, ResultCode, field, info1, info2, info3, op,
    particle_type as particle,
};

use crate::change_queue::Confirmation;
use crate::clock::HybridClock;
use crate::config::TruncationConfig;
use crate::namespace::Namespace;
use crate::testing::{
    Reply, TempDirectory, counter, delete, digest, file_config, get, int_bin, namespace_config,
    open, open_at, put_int, request, run_frame, site, write,
};
use crate::truncate::TruncateError;

const NOW_MS: u64 = 500_000_000_000;

/// A namespace, and its time of day in milliseconds.
fn open_with_time() -> (Arc<Namespace>, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(NOW_MS));
    let clock = HybridClock::given(time.clone());
    (open_at(namespace_config(), vec![], clock), time)
}

fn truncate_now(namespace: &Namespace, set: Option<&[u8]>) -> u64 {
    let mark = namespace.truncation_time();
    namespace
        .set_truncation(set, mark)
        .expect("room for a mark");
    mark
}

/// Writes in another set than the helpers do.
fn put_elsewhere(namespace: &Namespace, key: &str) -> Reply {
    let mut frame = Vec::new();
    let mut writer = RequestWriter::begin(&mut frame, write(0, 0));
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::SET, b"elsewhere");
    writer.field(field::DIGEST, &digest(key));
    writer.op(op::WRITE, particle::INTEGER, b"n", &7i64.to_be_bytes());
    writer.finish();
    run_frame(namespace, &frame)
}

#[test]
fn what_was_written_before_is_gone_at_once_and_what_comes_later_stays() {
    let (namespace, _time) = open_with_time();
    // All within one millisecond, in which a mark of the wall clock would not tell before from after.
    for i in 0..100 {
        put_int(&namespace, &format!("old{i}"), "n", 1);
        put_int(&namespace, &format!("again{i}"), "n", 1);
    }
    put_elsewhere(&namespace, "other");
    truncate_now(&namespace, Some(b"demo"));
    let create = write(info2::CREATE_ONLY, 0);
    for i in 0..100 {
        assert_eq!(
            get(&namespace, &format!("old{i}")).code,
            ResultCode::NotFound
        );
        let frame = request(&format!("again{i}"), create, |w| {
            w.op(op::WRITE, particle::INTEGER, b"n", &2i64.to_be_bytes());
        });
        let created = run_frame(&namespace, &frame);
        assert_eq!((created.code, created.generation), (ResultCode::Ok, 1));
    }
    assert_eq!(get(&namespace, "other").code, ResultCode::Ok);
    assert_eq!(delete(&namespace, "old1").code, ResultCode::NotFound);
    assert!(namespace.truncation.truncating());
    assert_eq!(namespace.sweep_truncated(|| false), 100);
    assert!(!namespace.truncation.truncating());
    assert_eq!(namespace.objects.load(Ordering::Relaxed), 101);
    assert_eq!(counter(&namespace, "truncated_objects"), 100);
    for i in 0..100 {
        assert_eq!(
            get(&namespace, &format!("again{i}")).bins,
            [int_bin("n", 2)]
        );
    }
    truncate_now(&namespace, None);
    assert_eq!(get(&namespace, "other").code, ResultCode::NotFound);
    assert_eq!(namespace.sweep_truncated(|| false), 101);
    assert_eq!(namespace.store.stats().used_bytes, 0);
}

#[test]
fn a_mark_in_the_past_parts_records_by_their_last_update() {
    let (namespace, time) = open_with_time();
    put_int(&namespace, "old", "n", 1);
    time.fetch_add(10, Ordering::Relaxed);
    put_int(&namespace, "young", "n", 1);
    namespace
        .set_truncation(None, NOW_MS + 10)
        .expect("room for a mark");
    assert_eq!(get(&namespace, "old").code, ResultCode::NotFound);
    assert_eq!(get(&namespace, "young").code, ResultCode::Ok);
}

#[test]
fn an_undo_shows_what_was_not_removed_yet() {
    let (namespace, _time) = open_with_time();
    for i in 0..50 {
        put_int(&namespace, &format!("k{i}"), "n", 1);
    }
    truncate_now(&namespace, None);
    let steps = std::cell::Cell::new(0);
    let removed = namespace.sweep_truncated(|| {
        steps.set(steps.get() + 1);
        steps.get() > 2000
    });
    assert!((1..50).contains(&removed), "{removed} of 50");
    assert!(namespace.truncation.truncating(), "it is not done");
    namespace
        .set_truncation(None, 0)
        .expect("taking a mark away");
    let shown = (0..50).filter(|i| get(&namespace, &format!("k{i}")).code == ResultCode::Ok);
    assert_eq!(shown.count() as u64, 50 - removed);
    assert_eq!(namespace.sweep_truncated(|| false), 0);
    assert!(!namespace.truncation.truncating());
}

#[test]
fn a_restart_with_the_mark_does_not_find_what_was_truncated() {
    for swept in [false, true] {
        let directory = TempDirectory::new(&format!("truncated-{swept}"));
        let mut config = file_config(&directory);
        let namespace = open(config.clone(), vec![]);
        for i in 0..20 {
            put_int(&namespace, &format!("k{i}"), "n", 1);
            put_elsewhere(&namespace, &format!("other{i}"));
        }
        let lut = truncate_now(&namespace, Some(b"demo"));
        put_int(&namespace, "k0", "n", 2);
        if swept {
            assert_eq!(namespace.sweep_truncated(|| false), 19);
        }
        namespace.store.close();
        drop(namespace);

        config.truncations = vec![TruncationConfig {
            set: Some("demo".into()),
            lut,
        }];
        let namespace = open(config.clone(), vec![]);
        assert_eq!(namespace.objects.load(Ordering::Relaxed), 21);
        assert_eq!(get(&namespace, "k0").bins, [int_bin("n", 2)]);
        assert_eq!(get(&namespace, "k1").code, ResultCode::NotFound);
        assert_eq!(get(&namespace, "other1").code, ResultCode::Ok);
        namespace.store.close();
    }
}

#[test]
fn deletions_outlive_a_truncation_and_still_ship() {
    let (east, to_west) = site(64);
    let (west, _) = site(64);
    let ship = || {
        let mut batch = Vec::new();
        let taken = to_west.take(&mut batch, 1 << 20, 1000);
        let mut rest = &batch[4..];
        let mut codes = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[0..4].try_into().expect("four bytes")) as usize;
            let token = u64::from_le_bytes(rest[8..16].try_into().expect("eight bytes"));
            codes.push(run_frame(&west, &rest[24..length]).code);
            to_west.confirm(token, Confirmation::Shipped);
            rest = &rest[length..];
        }
        assert_eq!(codes.len(), taken);
        codes
    };
    put_int(&east, "deleted", "n", 1);
    put_int(&east, "shipped", "n", 1);
    assert_eq!(ship(), [ResultCode::Ok; 2]);
    delete(&east, "deleted");
    put_int(&east, "waiting", "n", 1);
    truncate_now(&east, None);
    assert_eq!(
        ship(),
        [ResultCode::Ok],
        "the delete, not the truncated record"
    );
    assert_eq!(get(&west, "deleted").code, ResultCode::NotFound);
    assert_eq!(get(&west, "waiting").code, ResultCode::NotFound);
    assert_eq!(
        get(&west, "shipped").code,
        ResultCode::Ok,
        "stays over there"
    );
    assert_eq!(east.sweep_truncated(|| false), 2);
    assert_eq!(east.tombstones.load(Ordering::Relaxed), 1);
    assert_eq!(to_west.stats()["test"].in_queue, 0);
}

#[test]
fn a_change_from_elsewhere_that_is_older_than_the_mark_has_lost() {
    let (namespace, time) = open_with_time();
    let remote = |lut: u64, n: i64| {
        let header = RequestHeader {
            info1: info1::XDR,
            generation: 9,
            ..write(0, info3::CREATE_OR_REPLACE)
        };
        let frame = request("k", header, |w| {
            w.field(field::LUT, &lut.to_be_bytes());
            w.op(op::WRITE, particle::INTEGER, b"n", &n.to_be_bytes());
        });
        run_frame(&namespace, &frame).code
    };
    time.fetch_add(100, Ordering::Relaxed);
    let mark = truncate_now(&namespace, Some(b"demo"));
    assert_eq!(remote(mark - 1, 1), ResultCode::LostConflict);
    assert_eq!(namespace.objects.load(Ordering::Relaxed), 0);
    assert_eq!(remote(mark, 2), ResultCode::Ok);
    assert_eq!(get(&namespace, "k").bins, [int_bin("n", 2)]);
    namespace
        .set_truncation(Some(b"demo"), 0)
        .expect("taking a mark away");
    delete(&namespace, "k");
    assert_eq!(remote(mark - 1, 3), ResultCode::Ok, "the mark is gone");
}

#[test]
fn sets_with_a_mark_are_bounded() {
    let namespace = open(namespace_config(), vec![]);
    let mark = |i: usize| namespace.set_truncation(Some(format!("s{i}").as_bytes()), 1);
    for i in 0..perigee_wire::SETS_MAX {
        assert_eq!(mark(i), Ok(()));
    }
    assert_eq!(
        mark(perigee_wire::SETS_MAX),
        Err(TruncateError::TooManySets)
    );
    assert_eq!(mark(0), Ok(()), "one that has a mark may have another");
    assert_eq!(namespace.set_truncation(Some(b"s0"), 0), Ok(()));
    assert_eq!(mark(perigee_wire::SETS_MAX), Ok(()));
}
