//! Two sites in one process: what one hands out is run against the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use perigee_wire::{
    RequestHeader, ResultCode, field, info1, info2, info3, op, particle_type as particle,
};

use crate::change_queue::Confirmation;
use crate::clock::HybridClock;
use crate::index::TIES_MAX;
use crate::namespace::Namespace;
use crate::testing::{
    Reply, TempDirectory, delete, file_config, get, int_bin, namespace_config, put_int, request,
    run_frame, site, site_at, site_on, write,
};
use crate::xdr::{Datacenter, MalformedOutcomes, parse_outcomes};

const HEADER_BYTES: usize = 24;

/// Takes everything that waits: token and frame of each.
fn take(datacenter: &Datacenter) -> Vec<(u64, Vec<u8>)> {
    let mut batch = Vec::new();
    let count = datacenter.take(&mut batch, 1 << 20, 10_000);
    let mut entries = Vec::new();
    let mut rest = &batch[4..];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[0..4].try_into().expect("four bytes")) as usize;
        let token = u64::from_le_bytes(rest[8..16].try_into().expect("eight bytes"));
        entries.push((token, rest[HEADER_BYTES..length].to_vec()));
        rest = &rest[length..];
    }
    assert_eq!(entries.len(), count);
    entries
}

/// Ships everything that waits to another site.
fn ship(datacenter: &Datacenter, to: &Namespace) -> Vec<ResultCode> {
    let mut codes = Vec::new();
    for (token, frame) in take(datacenter) {
        codes.push(run_frame(to, &frame).code);
        datacenter.confirm(token, Confirmation::Shipped);
    }
    codes
}

fn bins(namespace: &Namespace, key: &str) -> Reply {
    get(namespace, key)
}

#[test]
fn writes_and_deletes_reach_the_other_site_and_do_not_come_back() {
    let (east, to_west) = site(64);
    let (west, to_east) = site(64);
    put_int(&east, "k", "n", 1);
    put_int(&east, "k", "n", 2);
    assert_eq!(ship(&to_west, &west), [ResultCode::Ok]);
    assert_eq!(
        bins(&west, "k"),
        bins(&east, "k"),
        "generation and bins are the source's"
    );
    assert!(take(&to_east).is_empty(), "what came by XDR is not shipped");
    delete(&west, "k");
    assert_eq!(ship(&to_east, &east), [ResultCode::Ok]);
    assert_eq!(get(&east, "k").code, ResultCode::NotFound);
    assert!(take(&to_west).is_empty());
}

#[test]
fn sites_that_were_written_at_once_end_equal() {
    for order in 0..2 {
        let (east, to_west) = site(64);
        let (west, to_east) = site(64);
        put_int(&east, "k", "n", 1);
        put_int(&west, "k", "n", 2);
        if order == 0 {
            ship(&to_west, &west);
            ship(&to_east, &east);
        } else {
            let (from_east, from_west) = (take(&to_west), take(&to_east));
            from_east
                .iter()
                .for_each(|(_, frame)| drop(run_frame(&west, frame)));
            from_west
                .iter()
                .for_each(|(_, frame)| drop(run_frame(&east, frame)));
        }
        assert_eq!(bins(&east, "k"), bins(&west, "k"));
        assert_eq!(get(&east, "k").code, ResultCode::Ok);
    }
}

#[test]
fn an_older_or_equal_version_is_a_lost_conflict() {
    let (east, _) = site(64);
    let now = east.clock.now();
    let remote = |time: u64, generation: u32, value: i64, tombstone: bool| {
        let mut header = RequestHeader {
            info1: info1::XDR,
            generation,
            ..write(0, info3::CREATE_OR_REPLACE)
        };
        if tombstone {
            header.info2 |= info2::DELETE;
            header.info3 = 0;
        }
        let frame = request("k", header, |w| {
            w.field(field::LUT, &time.to_be_bytes());
            if !tombstone {
                w.op(op::WRITE, particle::INTEGER, b"n", &value.to_be_bytes());
            }
        });
        run_frame(&east, &frame).code
    };
    assert_eq!(remote(now, 5, 1, false), ResultCode::Ok);
    assert_eq!(
        remote(now, 5, 1, false),
        ResultCode::LostConflict,
        "the same again"
    );
    assert_eq!(remote(now - 1, 9, 1, false), ResultCode::LostConflict);
    assert_eq!(remote(now, 4, 9, false), ResultCode::LostConflict);
    assert_eq!(
        remote(now, 5, 0, false),
        ResultCode::LostConflict,
        "the lesser content"
    );
    assert_eq!(
        remote(now, 5, 2, false),
        ResultCode::Ok,
        "the greater content"
    );
    assert_eq!(
        remote(now, 5, 0, true),
        ResultCode::LostConflict,
        "a tombstone is less than a record"
    );
    assert_eq!(remote(now + 1, 6, 0, true), ResultCode::Ok);
    assert_eq!(
        remote(now, 7, 1, false),
        ResultCode::LostConflict,
        "a late write does not bring it back"
    );
    assert_eq!(get(&east, "k").code, ResultCode::NotFound);
    let ahead = east.clock.now() + 3_600_000;
    assert_eq!(
        remote(ahead, 1, 1, false),
        ResultCode::Forbidden,
        "a clock an hour ahead"
    );
}

#[test]
fn a_record_made_again_after_its_delete_is_newer_than_the_delete() {
    let (east, to_west) = site(64);
    let (west, _to_east) = site(64);
    put_int(&east, "k", "n", 1);
    ship(&to_west, &west);
    delete(&east, "k");
    ship(&to_west, &west);
    put_int(&east, "k", "n", 3);
    assert_eq!(ship(&to_west, &west), [ResultCode::Ok]);
    assert_eq!(bins(&west, "k"), bins(&east, "k"));
}

#[test]
fn an_overflowing_queue_loses_no_change() {
    let (east, to_west) = site(16);
    let (west, _) = site(16);
    // All of one partition would take long to find; a small limit for each and many records do as well.
    for i in 0..20_000 {
        put_int(&east, &format!("k{i}"), "n", i);
    }
    let mut shipped = 0;
    loop {
        let codes = ship(&to_west, &west);
        if codes.is_empty() {
            break;
        }
        assert!(codes.iter().all(|code| *code == ResultCode::Ok));
        shipped += codes.len();
    }
    assert_eq!(shipped, 20_000);
    for i in 0..20_000 {
        assert_eq!(get(&west, &format!("k{i}")).code, ResultCode::Ok, "k{i}");
    }
}

#[test]
fn a_retry_is_handed_out_again_and_the_ship_time_waits_for_it() {
    let (east, to_west) = site(64);
    put_int(&east, "k", "n", 1);
    let first = take(&to_west);
    assert!(take(&to_west).is_empty());
    to_west.confirm(first[0].0, Confirmation::Retry);
    let again = take(&to_west);
    assert_eq!(again.len(), 1);
    let before: u64 = to_west
        .ship_times("test")
        .expect("a shipped namespace")
        .iter()
        .sum();
    to_west.confirm(again[0].0, Confirmation::Shipped);
    let after: u64 = to_west
        .ship_times("test")
        .expect("a shipped namespace")
        .iter()
        .sum();
    assert!(after >= before);
    assert_eq!(to_west.stats()["test"].in_progress, 0);
    assert_eq!(to_west.stats()["test"].in_queue, 0);
}

/// A write by XDR of one integer bin.
fn remote_write(key: &str, time: u64, generation: u32, value: i64) -> Vec<u8> {
    let header = RequestHeader {
        info1: info1::XDR,
        generation,
        ..write(0, info3::CREATE_OR_REPLACE)
    };
    request(key, header, |w| {
        w.field(field::LUT, &time.to_be_bytes());
        w.op(op::WRITE, particle::INTEGER, b"n", &value.to_be_bytes());
    })
}

#[test]
fn the_winner_of_every_tie_is_the_winner_after_a_restart() {
    let directory = TempDirectory::new("tie");
    let (east, _) = site_on(file_config(&directory), 64);
    let now = east.clock.now();
    // Content of as many sites, each greater than the one before.
    for value in 0..=i64::from(TIES_MAX) {
        assert_eq!(
            run_frame(&east, &remote_write("k", now, 5, value)).code,
            ResultCode::Ok
        );
    }
    let before = bins(&east, "k");
    assert_eq!(before.bins, [int_bin("n", i64::from(TIES_MAX))]);
    east.store.close();
    drop(east);
    let (east, _) = site_on(file_config(&directory), 64);
    assert_eq!(bins(&east, "k"), before);
    east.store.close();
}

#[test]
fn a_restart_ships_what_was_not_confirmed_and_deletes_stay() {
    let directory = TempDirectory::new("restart");
    let (west, _) = site(64);
    let times = {
        let (east, to_west) = site_on(file_config(&directory), 64);
        to_west.start();
        put_int(&east, "shipped", "n", 1);
        ship(&to_west, &west);
        // The clock's next tick, so that what follows is no change of the same millisecond.
        std::thread::sleep(std::time::Duration::from_millis(5));
        put_int(&east, "waiting", "n", 2);
        put_int(&east, "deleted", "n", 3);
        delete(&east, "deleted");
        let times = to_west.ship_times("test").expect("a shipped namespace");
        east.store.close();
        times
    };
    let (east, to_west) = site_on(file_config(&directory), 64);
    let times = times.as_slice().try_into().expect("4096 times");
    to_west.set_ship_times("test", times);
    to_west.start();
    assert_eq!(get(&east, "deleted").code, ResultCode::NotFound);
    let shipped = ship(&to_west, &west);
    assert!(
        shipped.len() <= 3,
        "the last confirmed change may come again, no other: {shipped:?}"
    );
    assert_eq!(bins(&west, "waiting"), bins(&east, "waiting"));
    assert_eq!(get(&west, "deleted").code, ResultCode::NotFound);
    assert_eq!(to_west.stats()["test"].recoveries_pending, 0);
    east.store.close();
}

#[test]
fn a_version_that_expires_before_it_ships_removes_the_older_one_over_there() {
    let time = Arc::new(AtomicU64::new(HybridClock::new().wall_ms()));
    let (east, to_west) = site_at(namespace_config(), 64, HybridClock::given(time.clone()));
    let (west, _) = site(64);
    put_int(&east, "k", "n", 1);
    ship(&to_west, &west);
    let header = RequestHeader {
        record_ttl: 1,
        ..write(0, 0)
    };
    let frame = request("k", header, |w| {
        w.op(op::WRITE, particle::INTEGER, b"n", &2i64.to_be_bytes());
    });
    assert_eq!(run_frame(&east, &frame).code, ResultCode::Ok);
    time.fetch_add(1000, Ordering::Relaxed);
    assert_eq!(get(&east, "k").code, ResultCode::NotFound);
    assert_eq!(
        east.expire(|| false),
        0,
        "kept until the datacenter has heard of it"
    );
    assert_eq!(get(&west, "k").code, ResultCode::Ok);
    ship(&to_west, &west);
    assert_eq!(get(&west, "k").code, ResultCode::NotFound);
    assert_eq!(east.expire(|| false), 1);
}

#[test]
fn results_that_fit_no_reply_are_refused() {
    let (east, _) = site(64);
    let large = vec![b'x'; 16 << 10];
    let frame = request("k", write(0, 0), |w| {
        w.op(op::WRITE, particle::STRING, b"s", &large)
    });
    assert_eq!(run_frame(&east, &frame).code, ResultCode::Ok);
    let many = |name: &'static [u8], count: usize| {
        let header = RequestHeader {
            info1: info1::READ,
            ..RequestHeader::default()
        };
        let frame = request("k", header, |w| {
            (0..count).for_each(|_| w.op(op::READ, 0, name, b""))
        });
        run_frame(&east, &frame).code
    };
    assert_eq!(many(b"s", 100), ResultCode::Ok);
    assert_eq!(many(b"s", 30_000), ResultCode::Parameter);
    // All bins are sent once, so that these do not add up.
    assert_eq!(many(b"", 30_000), ResultCode::Ok);
}

#[test]
fn a_record_put_again_right_after_its_delete_is_the_one_that_a_restart_finds() {
    let directory = TempDirectory::new("again");
    let mut config = file_config(&directory);
    config.name = "test".into();
    let east = crate::testing::open(config.clone(), vec![]);
    // Within one millisecond, and an older version that has seen more generations.
    for i in 0..50 {
        let key = format!("k{i}");
        put_int(&east, &key, "n", 1);
        put_int(&east, &key, "n", 2);
        delete(&east, &key);
        put_int(&east, &key, "n", 3);
    }
    east.store.close();
    drop(east);
    let east = crate::testing::open(config, vec![]);
    for i in 0..50 {
        assert_eq!(
            get(&east, &format!("k{i}")).bins,
            [crate::testing::int_bin("n", 3)],
            "k{i}"
        );
    }
    east.store.close();
}

#[test]
fn outcomes_that_make_no_sense_are_refused_as_a_whole() {
    let outcome = |token: u64, outcome: u64| [token.to_le_bytes(), outcome.to_le_bytes()].concat();
    let good = [outcome(7, 0), outcome(u64::MAX, 1), outcome(9, 2)].concat();
    let expected = vec![
        (7, Confirmation::Shipped),
        (u64::MAX, Confirmation::Retry),
        (9, Confirmation::Abandoned),
    ];
    assert_eq!(parse_outcomes(&good), Ok(expected));
    assert_eq!(parse_outcomes(&[]), Ok(vec![]));
    assert_eq!(parse_outcomes(&good[1..]), Err(MalformedOutcomes::Length));
    let unknown = [good, outcome(1, 3)].concat();
    assert_eq!(parse_outcomes(&unknown), Err(MalformedOutcomes::Unknown(3)));
}
