//! Reads, writes and deletes of single records, by frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use perigee_wire::{
    Message, PROTO_HEADER_BYTES, RequestHeader, ResultCode, field, info1, info2, info3, op,
    particle_type as particle, ttl,
};

use crate::clock::HybridClock;
use crate::config::SetConfig;
use crate::partition::Waiter;
use crate::record::compression::CompressionKind;
use crate::request::{Outcome, ReplyShape, Request};
use crate::testing::{
    Reply, counter, delete, digest, get, int_bin, namespace_config, open, open_at, parse,
    put_frame, put_int, request, run_frame, try_frame, write,
};
use crate::udf::UdfResult;

fn with_generation(info2_flag: u8, generation: u32) -> RequestHeader {
    RequestHeader {
        generation,
        ..write(info2_flag, 0)
    }
}

#[test]
fn a_write_is_read_back_and_counts_its_generation() {
    let ns = open(namespace_config(), vec![]);
    assert_eq!(put_int(&ns, "k", "a", 7).generation, 1);
    assert_eq!(put_int(&ns, "k", "b", -1).generation, 2);
    let reply = get(&ns, "k");
    assert_eq!(
        reply,
        Reply {
            code: ResultCode::Ok,
            generation: 2,
            void_time: 0,
            bins: vec![int_bin("a", 7), int_bin("b", -1)],
        }
    );
    assert_eq!(get(&ns, "other").code, ResultCode::NotFound);
    assert_eq!(delete(&ns, "k").code, ResultCode::Ok);
    assert_eq!(get(&ns, "k").code, ResultCode::NotFound);
    assert_eq!(delete(&ns, "k").code, ResultCode::NotFound);
    assert_eq!(
        put_int(&ns, "k", "a", 1).generation,
        1,
        "a new record starts again"
    );
}

#[test]
fn exists_policies_are_kept() {
    let ns = open(namespace_config(), vec![]);
    let put = |info2_more, info3| {
        let value = 9i64.to_be_bytes();
        let frame = request("k", write(info2_more, info3), |w| {
            w.op(op::WRITE, particle::INTEGER, b"n", &value);
        });
        run_frame(&ns, &frame).code
    };
    assert_eq!(put(0, info3::UPDATE_ONLY), ResultCode::NotFound);
    assert_eq!(put(0, info3::REPLACE_ONLY), ResultCode::NotFound);
    assert_eq!(put(info2::CREATE_ONLY, 0), ResultCode::Ok);
    assert_eq!(put(info2::CREATE_ONLY, 0), ResultCode::RecordExists);
    put_int(&ns, "k", "other", 1);
    assert_eq!(put(0, info3::UPDATE_ONLY), ResultCode::Ok);
    assert_eq!(get(&ns, "k").bins.len(), 2);
    assert_eq!(put(0, info3::CREATE_OR_REPLACE), ResultCode::Ok);
    assert_eq!(get(&ns, "k").bins, [int_bin("n", 9)]);
    assert_eq!(put(0, info3::REPLACE_ONLY), ResultCode::Ok);
}

#[test]
fn generation_policies_are_kept() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "a", 1);
    let put = |header| {
        let frame = request("k", header, |w| {
            w.op(op::WRITE, particle::INTEGER, b"a", &2i64.to_be_bytes());
        });
        run_frame(&ns, &frame).code
    };
    assert_eq!(
        put(with_generation(info2::GENERATION, 5)),
        ResultCode::Generation
    );
    assert_eq!(put(with_generation(info2::GENERATION, 1)), ResultCode::Ok);
    assert_eq!(
        put(with_generation(info2::GENERATION_GT, 2)),
        ResultCode::Generation
    );
    assert_eq!(
        put(with_generation(info2::GENERATION_GT, 3)),
        ResultCode::Ok
    );
    let deleted = |generation| {
        let header = with_generation(info2::GENERATION | info2::DELETE, generation);
        run_frame(&ns, &request("k", header, |_| {})).code
    };
    assert_eq!(deleted(9), ResultCode::Generation);
    assert_eq!(deleted(3), ResultCode::Ok);
}

#[test]
fn operations_apply_in_order_and_reply_in_order() {
    let ns = open(namespace_config(), vec![]);
    let header = RequestHeader {
        info1: info1::READ,
        ..write(0, 0)
    };
    let frame = request("k", header, |w| {
        w.op(op::INCR, particle::INTEGER, b"n", &5i64.to_be_bytes());
        w.op(op::READ, particle::NULL, b"n", b"");
        w.op(op::INCR, particle::INTEGER, b"n", &(-7i64).to_be_bytes());
        w.op(op::APPEND, particle::STRING, b"s", b"world");
        w.op(op::PREPEND, particle::STRING, b"s", b"hello ");
        w.op(op::READ, particle::NULL, b"n", b"");
        w.op(op::READ, particle::NULL, b"s", b"");
        w.op(op::READ, particle::NULL, b"absent", b"");
    });
    let reply = run_frame(&ns, &frame);
    let hello = ("s".to_owned(), particle::STRING, b"hello world".to_vec());
    assert_eq!(reply.bins, [int_bin("n", 5), int_bin("n", -2), hello]);
}

/// With nothing to add to, clients expect what they gave to be written.
#[test]
fn what_is_added_to_nothing_is_written_whatever_it_is() {
    let ns = open(namespace_config(), vec![]);
    let added = |code, kind, name: &[u8], value: &[u8]| {
        let frame = request("k", write(0, 0), |w| w.op(code, kind, name, value));
        run_frame(&ns, &frame).code
    };
    let list: &[u8] = &[0x91, 1];
    let cases: [(u8, u8, &[u8], &[u8]); 3] = [
        (op::INCR, particle::STRING, b"text", b"abc"),
        (op::APPEND, particle::LIST, b"list", list),
        (op::PREPEND, particle::INTEGER, b"n", &7i64.to_be_bytes()),
    ];
    for (code, kind, name, value) in cases {
        assert_eq!(added(code, kind, name, value), ResultCode::Ok);
        assert_eq!(added(code, kind, name, value), ResultCode::IncompatibleType);
    }
    let text = ("text".to_owned(), particle::STRING, b"abc".to_vec());
    let list = ("list".to_owned(), particle::LIST, list.to_vec());
    assert_eq!(get(&ns, "k").bins, [text, list, int_bin("n", 7)]);
    for code in [op::INCR, op::APPEND] {
        assert_eq!(
            added(code, particle::NULL, b"x", b""),
            ResultCode::Parameter
        );
        let bad = added(code, particle::INTEGER, b"x", b"12");
        assert_eq!(bad, ResultCode::Parameter, "an integer of two bytes");
    }
}

#[test]
fn an_operation_that_fails_changes_nothing() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "n", 1);
    let frame = request("k", write(0, 0), |w| {
        w.op(op::INCR, particle::INTEGER, b"n", &1i64.to_be_bytes());
        w.op(op::APPEND, particle::STRING, b"n", b"x");
    });
    assert_eq!(run_frame(&ns, &frame).code, ResultCode::IncompatibleType);
    let reply = get(&ns, "k");
    assert_eq!((reply.generation, reply.bins), (1, vec![int_bin("n", 1)]));
}

#[test]
fn removing_the_last_bin_removes_the_record() {
    let ns = open(namespace_config(), vec![]);
    let clear = request("k", write(0, 0), |w| {
        w.op(op::WRITE, particle::NULL, b"a", b"")
    });
    assert_eq!(run_frame(&ns, &clear).code, ResultCode::NotFound);
    put_int(&ns, "k", "a", 1);
    assert_eq!(run_frame(&ns, &clear).code, ResultCode::Ok);
    assert_eq!(get(&ns, "k").code, ResultCode::NotFound);
}

#[test]
fn requests_that_make_no_sense_are_refused_with_the_right_code() {
    let ns = open(namespace_config(), vec![]);
    let code = |header, extra: &dyn Fn(&mut perigee_wire::RequestWriter<'_>)| {
        run_frame(&ns, &request("k", header, |w| extra(w))).code
    };
    let one = 1i64.to_be_bytes();
    assert_eq!(
        code(write(0, 0), &|_| {}),
        ResultCode::Parameter,
        "a write without operations"
    );
    assert_eq!(
        code(RequestHeader::default(), &|_| {}),
        ResultCode::Parameter,
        "neither read nor write"
    );
    assert_eq!(
        code(write(0, 0), &|w| w.op(op::READ, 0, b"a", b"")),
        ResultCode::Parameter,
        "a read operation without the read flag"
    );
    assert_eq!(
        code(write(0, info3::REPLACE_ONLY), &|w| w.op(
            op::INCR,
            particle::INTEGER,
            b"a",
            &one
        )),
        ResultCode::Parameter,
        "a replace that looks at what it replaces"
    );
    assert_eq!(
        code(write(0, 0), &|w| w.op(
            op::WRITE,
            particle::INTEGER,
            b"a",
            &[1, 2]
        )),
        ResultCode::Parameter,
        "an integer of two bytes"
    );
    assert_eq!(
        code(write(0, 0), &|w| w.op(
            op::STRING_MODIFY,
            particle::BLOB,
            b"a",
            &[0x91, 0]
        )),
        ResultCode::UnsupportedFeature
    );
    assert_eq!(
        code(write(0, 0), &|w| w.op(
            op::WRITE,
            particle::STRING,
            b"a",
            &[b'x'; 40 << 10]
        )),
        ResultCode::RecordTooBig
    );
    assert_eq!(
        code(write(0, 0), &|w| w.op(op::TOUCH, 0, b"", b"")),
        ResultCode::NotFound,
        "a touch of nothing"
    );
    assert_eq!(get(&ns, "k").code, ResultCode::NotFound);
}

#[test]
fn a_stored_key_is_checked_and_kept() {
    let ns = open(namespace_config(), vec![]);
    let put = |key: &[u8]| {
        let frame = request("k", write(0, 0), |w| {
            w.field(field::KEY, key);
            w.op(op::WRITE, particle::INTEGER, b"a", &1i64.to_be_bytes());
        });
        run_frame(&ns, &frame).code
    };
    assert_eq!(put(b"\x03k"), ResultCode::Ok);
    put_int(&ns, "k", "a", 2);
    assert_eq!(put(b"\x03other"), ResultCode::KeyMismatch);
    let header = RequestHeader {
        info1: info1::READ | info1::GET_NO_BINS,
        ..RequestHeader::default()
    };
    let exists =
        |key: &[u8]| run_frame(&ns, &request("k", header, |w| w.field(field::KEY, key))).code;
    assert_eq!(exists(b"\x03k"), ResultCode::Ok);
    assert_eq!(exists(b"\x03other"), ResultCode::KeyMismatch);
}

#[test]
fn time_to_live_follows_the_rules() {
    let config = namespace_config();
    config.default_ttl.set(500);
    let ns = open(config, vec![]);
    let put = |record_ttl| {
        let header = RequestHeader {
            record_ttl,
            ..write(0, 0)
        };
        let frame = request("k", header, |w| {
            w.op(op::WRITE, particle::INTEGER, b"a", &1i64.to_be_bytes());
        });
        run_frame(&ns, &frame)
    };
    let near = |reply: Reply, seconds: u32| {
        let expected = ns.clock.wall_seconds() + seconds;
        assert!(
            reply.void_time.abs_diff(expected) <= 1,
            "{reply:?}, expected about {expected}"
        );
    };
    near(put(ttl::DONT_UPDATE), 500);
    near(put(100), 100);
    near(put(ttl::DONT_UPDATE), 100);
    near(put(ttl::DEFAULT), 500);
    assert_eq!(put(ttl::NEVER).void_time, 0);
    assert_eq!(put(315_360_001).code, ResultCode::Parameter);
}

#[test]
fn a_time_to_live_is_refused_where_nothing_would_expire() {
    let config = namespace_config();
    config.nsup_period.set(0);
    let ns = open(config.clone(), vec![]);
    let header = RequestHeader {
        record_ttl: 10,
        ..write(0, 0)
    };
    let frame = request("k", header, |w| {
        w.op(op::WRITE, particle::INTEGER, b"a", &1i64.to_be_bytes());
    });
    assert_eq!(run_frame(&ns, &frame).code, ResultCode::Forbidden);
    config.allow_ttl_without_nsup.set(true);
    assert_eq!(
        run_frame(&open(config, vec![]), &frame).code,
        ResultCode::Ok
    );
}

#[test]
fn a_set_has_a_time_to_live_and_a_read_touch_of_its_own() {
    let mut config = namespace_config();
    config.default_ttl.set(500);
    config.default_read_touch_ttl_pct.set(100);
    config.sets = vec![SetConfig {
        name: "demo".into(),
        default_ttl: 100.into(),
        default_read_touch_ttl_pct: (-1).into(),
        ..SetConfig::default()
    }];
    let time = Arc::new(AtomicU64::new(500_000_000_000));
    let clock = HybridClock::given(time.clone());
    let ns = open_at(config, vec![], clock);
    let ttl = |reply: Reply| reply.void_time - ns.clock.wall_seconds();
    assert_eq!(ttl(put_int(&ns, "k", "a", 1)), 100);
    time.fetch_add(50_000, Ordering::Relaxed);
    get(&ns, "k");
    assert_eq!(ttl(get(&ns, "k")), 50, "this set's reads never touch");
    ns.sets.configure(&[SetConfig {
        name: "demo".into(),
        ..SetConfig::default()
    }]);
    get(&ns, "k");
    assert_eq!(ttl(get(&ns, "k")), 100, "now as the namespace says");
    assert_eq!(ttl(put_int(&ns, "k", "a", 1)), 500);
}

/// Records that live for seconds: less than half of two seconds is left after 1.1.
#[test]
fn what_is_left_of_a_life_is_known_to_the_millisecond() {
    let time = Arc::new(AtomicU64::new(500_000_000_000));
    let ns = open_at(namespace_config(), vec![], HybridClock::given(time.clone()));
    let lasting = RequestHeader {
        record_ttl: 2,
        ..write(0, 0)
    };
    let frame = request("k", lasting, |w| {
        w.op(op::WRITE, particle::INTEGER, b"a", &1i64.to_be_bytes());
    });
    let written = run_frame(&ns, &frame).void_time;
    let touching = RequestHeader {
        info1: info1::READ | info1::GET_ALL,
        record_ttl: 50,
        ..RequestHeader::default()
    };
    let read = request("k", touching, |_| {});
    time.fetch_add(1000, Ordering::Relaxed);
    run_frame(&ns, &read);
    assert_eq!(get(&ns, "k").void_time, written, "half of it is left");
    time.fetch_add(1, Ordering::Relaxed);
    run_frame(&ns, &read);
    assert_eq!(get(&ns, "k").void_time, written + 1);
}

#[test]
fn a_changed_configuration_is_in_force_at_once() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "a", 1);
    let mut changed = namespace_config();
    changed.default_ttl.set(60);
    changed.max_record_size.set(100);
    changed.stop_writes_used_pct.set(33);
    changed.sets = vec![SetConfig {
        name: "demo".into(),
        stop_writes_count: 2.into(),
        ..SetConfig::default()
    }];
    ns.reconfigure(&changed);
    assert_ne!(put_int(&ns, "k", "a", 2).void_time, 0);
    let frame = request("k", write(0, 0), |w| {
        w.op(op::WRITE, particle::STRING, b"s", &[b'x'; 200]);
    });
    assert_eq!(run_frame(&ns, &frame).code, ResultCode::RecordTooBig);
    assert_eq!(put_int(&ns, "l", "a", 1).code, ResultCode::Ok);
    assert_eq!(put_int(&ns, "m", "a", 1).code, ResultCode::Forbidden);
    assert_eq!(ns.config.stop_writes_used_pct.get(), 33);
}

#[test]
fn compression_and_paces_change_while_records_are_written_and_read() {
    let ns = open(namespace_config(), vec![]);
    let frame = |key| {
        request(key, write(0, 0), |w| {
            w.op(op::WRITE, particle::STRING, b"s", &[b'x'; 400]);
        })
    };
    let used = || ns.store.stats().used_bytes;
    assert_eq!(run_frame(&ns, &frame("plain")).code, ResultCode::Ok);
    let plain = used();
    let changed = namespace_config();
    let common = changed.storage_engine.common();
    common.compression.set(CompressionKind::Zstd);
    common.compression_level.set(9);
    common.defrag_sleep.set(7);
    common.defrag_queue_min.set(3);
    common.tomb_raider_sleep.set(11);
    ns.reconfigure(&changed);
    assert_eq!(run_frame(&ns, &frame("packed")).code, ResultCode::Ok);
    let packed = used() - plain;
    assert!(packed < plain / 2, "{packed} bytes after {plain}");
    assert_eq!(ns.config.compression().level, 9);
    let pace = ns.config.storage_engine.common().defrag_pace();
    assert_eq!((pace.sleep, pace.queue_min), (Duration::from_micros(7), 3));
    assert_eq!(ns.config.tomb_raider_sleep(), Duration::from_micros(11));
    ns.reconfigure(&namespace_config());
    assert_eq!(run_frame(&ns, &frame("again")).code, ResultCode::Ok);
    assert_eq!(used(), 2 * plain + packed);
    for key in ["plain", "packed", "again"] {
        assert_eq!(get(&ns, key).code, ResultCode::Ok);
    }
}

#[test]
fn a_full_set_refuses_writes_and_still_reads_and_deletes() {
    let mut config = namespace_config();
    config.sets = vec![SetConfig {
        name: "demo".into(),
        stop_writes_count: 2.into(),
        ..SetConfig::default()
    }];
    let ns = open(config, vec![]);
    assert_eq!(put_int(&ns, "a", "n", 1).code, ResultCode::Ok);
    assert_eq!(put_int(&ns, "b", "n", 1).code, ResultCode::Ok);
    assert_eq!(put_int(&ns, "c", "n", 1).code, ResultCode::Forbidden);
    assert_eq!(put_int(&ns, "a", "n", 2).code, ResultCode::Forbidden);
    assert_eq!(get(&ns, "a").code, ResultCode::Ok);
    assert_eq!(delete(&ns, "a").code, ResultCode::Ok);
    assert_eq!(put_int(&ns, "c", "n", 1).code, ResultCode::Ok);
}

#[test]
fn stopped_writes_answer_out_of_space_and_go_on_when_there_is_room() {
    let config = namespace_config();
    let ns = open(config, vec![]);
    ns.config
        .indexes_memory_budget
        .set(ns.index_bytes() + (64 << 10));
    let mut written = 0;
    while !ns.stop_writes() {
        assert_eq!(
            put_int(&ns, &format!("k{written}"), "n", 1).code,
            ResultCode::Ok
        );
        written += 1;
        ns.update_limits(None);
        assert!(written < 10_000, "the budget is never reached");
    }
    assert_eq!(ns.stop_writes_reason(), "indexes-memory-budget");
    assert_eq!(put_int(&ns, "new", "n", 1).code, ResultCode::OutOfSpace);
    assert_eq!(get(&ns, "k0").code, ResultCode::Ok);
    ns.config.indexes_memory_budget.set(1 << 30);
    ns.update_limits(None);
    assert_eq!(put_int(&ns, "new", "n", 1).code, ResultCode::Ok);
    assert_eq!(delete(&ns, "k0").code, ResultCode::Ok);
}

#[test]
fn a_partition_of_another_node_is_not_served() {
    let ns = open(namespace_config(), vec![]);
    let partition = perigee_wire::partition_of(&digest("k")).index();
    let mut masters = [0xff; 512];
    masters[partition / 8] &= !(0x80 >> (partition % 8));
    ns.set_ownership(2, &masters);
    assert_eq!(put_int(&ns, "k", "a", 1).code, ResultCode::Unavailable);
    ns.set_ownership(1, &[0xff; 512]);
    assert_eq!(
        put_int(&ns, "k", "a", 1).code,
        ResultCode::Unavailable,
        "a stale decision counts for nothing"
    );
    ns.set_ownership(3, &[0xff; 512]);
    assert_eq!(put_int(&ns, "k", "a", 1).code, ResultCode::Ok);
}

fn udf_frame(key: &str) -> Vec<u8> {
    request(key, write(0, 0), |w| {
        w.field(field::UDF_MODULE, b"m");
        w.field(field::UDF_FUNCTION, b"f");
        w.field(field::UDF_ARGS, &[0x90]);
    })
}

/// A result as a worker writes it: set bin `n` to an integer, return an integer.
fn udf_result(n: i64, returned: i64) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[5] = 1;
    bytes[20] = 1;
    bytes[22] = particle::INTEGER;
    bytes[24] = 8;
    bytes.extend_from_slice(&returned.to_be_bytes());
    bytes.extend_from_slice(&[1, particle::INTEGER, 0, 0, 8, 0, 0, 0, b'n']);
    bytes.extend_from_slice(&n.to_be_bytes());
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    [1u32.to_le_bytes().to_vec(), bytes].concat()
}

#[test]
fn lua_holds_its_record_and_its_result_is_one_write() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "n", 1);
    let mut out = Vec::new();
    let Outcome::RunUdf(task) = try_frame(&ns, &udf_frame("k"), None, &mut out) else {
        panic!("a call is not answered at once")
    };
    let waiter = Waiter {
        thread: 3,
        request: 4,
    };
    let waits = try_frame(&ns, &put_frame("k", "n", 9), Some(waiter), &mut out);
    assert!(matches!(waits, Outcome::AwaitRecord));
    assert_eq!(
        get(&ns, "k").bins,
        [int_bin("n", 1)],
        "reads see the last version"
    );
    assert_eq!(
        put_int(&ns, "other", "n", 1).code,
        ResultCode::Ok,
        "other records go on"
    );
    assert_eq!(
        put_int(&ns, "k", "n", 5).code,
        ResultCode::KeyBusy,
        "who cannot wait is refused"
    );

    let bytes = udf_result(2, 77);
    let results = UdfResult::parse_batch(&bytes).expect("a valid batch");
    let done = ns.finish_udf(&task, &results[0], &mut out);
    assert_eq!(done.woken, [waiter]);
    let reply = parse(&out);
    assert_eq!(
        reply.bins,
        [(
            "SUCCESS".to_owned(),
            particle::INTEGER,
            77i64.to_be_bytes().to_vec()
        )]
    );
    let record = get(&ns, "k");
    assert_eq!((record.generation, record.bins), (2, vec![int_bin("n", 2)]));
}

#[test]
fn what_lua_writes_lives_as_long_as_the_request_says() {
    let config = namespace_config();
    config.default_ttl.set(500);
    let ns = open(config, vec![]);
    // (of the request, action and seconds of the function) and the seconds to live.
    let cases = [
        ((1000, 0, 0), Some(1000)),
        ((0, 0, 0), Some(500)),
        ((ttl::NEVER, 0, 0), None),
        ((ttl::DONT_UPDATE, 0, 0), Some(100)),
        ((1000, 1, 50), Some(50)),
        ((1000, 1, 0), Some(500)),
        ((1000, 2, 0), None),
        ((1000, 3, 0), Some(100)),
    ];
    for ((record_ttl, action, seconds), expected) in cases {
        let header = RequestHeader {
            record_ttl: 100,
            ..write(0, 0)
        };
        let frame = request("k", header, |w| {
            w.op(op::WRITE, particle::INTEGER, b"n", &1i64.to_be_bytes());
        });
        run_frame(&ns, &frame);
        let header = RequestHeader {
            record_ttl,
            ..write(0, 0)
        };
        let frame = request("k", header, |w| {
            w.field(field::UDF_MODULE, b"m");
            w.field(field::UDF_FUNCTION, b"f");
            w.field(field::UDF_ARGS, &[0x90]);
        });
        let mut out = Vec::new();
        let Outcome::RunUdf(task) = try_frame(&ns, &frame, None, &mut out) else {
            panic!("a call is not answered at once")
        };
        let mut bytes = udf_result(2, 77);
        bytes[4 + 6] = action;
        bytes[4 + 16..4 + 20].copy_from_slice(&u32::to_le_bytes(seconds));
        let results = UdfResult::parse_batch(&bytes).expect("a valid batch");
        ns.finish_udf(&task, &results[0], &mut out);
        let now = ns.clock.wall_seconds();
        let void_time = get(&ns, "k").void_time;
        match expected {
            None => assert_eq!(void_time, 0, "{record_ttl} {action} {seconds}"),
            Some(expected) => {
                let found = void_time - now;
                assert!(
                    (expected - 5..=expected).contains(&found),
                    "{found} seconds instead of {expected}: {record_ttl} {action} {seconds}"
                );
            }
        }
    }
}

#[test]
fn a_read_without_bins_among_writes_gives_none() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "n", 1);
    let header = RequestHeader {
        info1: info1::READ | info1::GET_NO_BINS,
        ..write(0, 0)
    };
    let touched = run_frame(
        &ns,
        &request("k", header, |w| {
            w.op(op::TOUCH, particle::NULL, b"", b"");
            w.op(op::READ, particle::NULL, b"", b"");
        }),
    );
    assert_eq!((touched.code, touched.generation), (ResultCode::Ok, 2));
    assert_eq!(touched.bins, []);
    // Results of what changes a bin are sent all the same.
    let appended = run_frame(
        &ns,
        &request("k", header, |w| {
            w.op(op::READ, particle::NULL, b"", b"");
            w.op(op::CDT_MODIFY, particle::BLOB, b"l", &[0x92, 1, 5]);
        }),
    );
    assert_eq!(appended.bins, [int_bin("l", 1)]);
}

#[test]
fn all_bins_are_sent_once_however_often_they_are_asked_for() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "n", 1);
    let header = RequestHeader {
        info1: info1::READ | info1::GET_ALL,
        ..RequestHeader::default()
    };
    let read = |names: &[&[u8]]| {
        let frame = request("k", header, |w| {
            for name in names {
                w.op(op::READ, particle::NULL, name, b"");
            }
        });
        run_frame(&ns, &frame)
    };
    assert_eq!(read(&[b"", b""]).bins, [int_bin("n", 1)]);
    assert_eq!(read(&[b"", b"n"]).code, ResultCode::Parameter);
}

#[test]
fn a_record_truncated_under_a_lua_call_does_not_come_back_by_it() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "n", 1);
    let mut out = Vec::new();
    let Outcome::RunUdf(task) = try_frame(&ns, &udf_frame("k"), None, &mut out) else {
        panic!("a call is not answered at once")
    };
    let mark = ns.truncation_time();
    ns.set_truncation(None, mark).expect("room for a mark");
    assert_eq!(ns.sweep_truncated(|| false), 0, "Lua works on it");
    assert!(ns.truncation.truncating());
    let bytes = udf_result(2, 77);
    let results = UdfResult::parse_batch(&bytes).expect("a valid batch");
    ns.finish_udf(&task, &results[0], &mut out);
    assert_eq!(parse(&out).code, ResultCode::KeyBusy);
    assert_eq!(get(&ns, "k").code, ResultCode::NotFound);
    assert_eq!(ns.sweep_truncated(|| false), 1);
    assert!(!ns.truncation.truncating());
}

#[test]
fn a_task_is_laid_out_as_documented() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "n", 1);
    let mut out = Vec::new();
    let Outcome::RunUdf(task) = try_frame(&ns, &udf_frame("k"), None, &mut out) else {
        panic!("a call is not answered at once")
    };
    let mut bytes = Vec::new();
    task.encode(7, 250, &ns, &mut bytes);
    assert_eq!(bytes.len(), task.encoded_bytes("test"));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(u32_at(0) as usize, bytes.len());
    assert_eq!(u32_at(4), 250);
    assert_eq!(bytes[8..16], 7u64.to_le_bytes());
    assert_eq!((u32_at(24), u32_at(28)), (0, u32::MAX), "never expires");
    assert_eq!(bytes[32..34], 1u16.to_le_bytes(), "generation");
    assert_eq!(
        (bytes[34], bytes[35]),
        (1, 4),
        "the record exists, no key, a set name of four bytes"
    );
    assert_eq!(bytes[40..42], 1u16.to_le_bytes(), "bins");
    assert_eq!((bytes[42], bytes[43], u32_at(44), u32_at(48)), (1, 1, 1, 0));
    assert_eq!(bytes[52..72], digest("k"));
    assert_eq!(bytes[72..76], [4, 0, 0, 0]);
    assert_eq!(&bytes[76..87], b"testdemomf\x90");
    assert_eq!(
        bytes[87..96],
        [1, particle::INTEGER, 0, 0, 8, 0, 0, 0, b'n']
    );
    assert_eq!(bytes[96..], 1i64.to_be_bytes());
}

#[test]
fn a_failed_call_leaves_the_record_and_frees_it() {
    let ns = open(namespace_config(), vec![]);
    put_int(&ns, "k", "n", 1);
    let mut out = Vec::new();
    let Outcome::RunUdf(task) = try_frame(&ns, &udf_frame("k"), None, &mut out) else {
        panic!("a call is not answered at once")
    };
    ns.fail_udf(&task, ResultCode::UdfExecution, "m.lua:1: no", &mut out);
    let reply = parse(&out);
    assert_eq!(reply.code, ResultCode::UdfExecution);
    assert_eq!(
        reply.bins,
        [(
            "FAILURE".to_owned(),
            particle::STRING,
            b"m.lua:1: no".to_vec()
        )]
    );
    assert_eq!(put_int(&ns, "k", "n", 2).generation, 2);
}

#[test]
fn calls_are_counted_by_who_called_and_what_came_of_it() {
    for (shape, calls, scripts) in [
        (ReplyShape::Frame, "client_udf", "client_lang"),
        (ReplyShape::Row(0), "batch_sub_udf", "batch_sub_lang"),
        (ReplyShape::Nobody, "udf_sub_udf", "udf_sub_lang"),
    ] {
        let ns = open(namespace_config(), vec![]);
        put_int(&ns, "k", "n", 1);
        let begin = || {
            let frame = udf_frame("k");
            let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a valid message");
            let digest = *message.digest.expect("a digest");
            let request = Request {
                shape,
                ..Request::new(&message, &digest)
            };
            match ns.execute(&request, &mut Vec::new()) {
                Outcome::RunUdf(task) => task,
                _ => panic!("a call is not answered at once"),
            }
        };
        for (did, action) in [("write", 1), ("read", 0), ("delete", 2)] {
            let mut bytes = udf_result(2, 77);
            bytes[4 + 5] = action;
            let results = UdfResult::parse_batch(&bytes).expect("a valid batch");
            ns.finish_udf(&begin(), &results[0], &mut Vec::new());
            assert_eq!(counter(&ns, &format!("{scripts}_{did}_success")), 1);
            put_int(&ns, "k", "n", 1);
        }
        for (code, counted) in [
            (ResultCode::UdfExecution, "error"),
            (ResultCode::Timeout, "timeout"),
        ] {
            ns.fail_udf(&begin(), code, "", &mut Vec::new());
            assert_eq!(counter(&ns, &format!("{calls}_{counted}")), 1, "{code:?}");
        }
        assert_eq!(counter(&ns, &format!("{calls}_complete")), 3);
        assert_eq!(counter(&ns, &format!("{scripts}_error")), 1);
    }
}

#[test]
fn results_cut_anywhere_are_refused_whole() {
    let bytes = udf_result(2, 77);
    assert_eq!(
        UdfResult::parse_batch(&bytes).map(|results| results.len()),
        Ok(1)
    );
    for end in 1..bytes.len() {
        assert!(
            UdfResult::parse_batch(&bytes[..end]).is_err(),
            "cut at {end}"
        );
    }
}
