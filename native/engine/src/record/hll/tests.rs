//! Sketches, compared with bytes and counts that official clients expect, and with sets of known size.

use super::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::collections::HashMap;

const LIMIT: usize = 1 << 20;

/// As msgpack; strings are strings, those of the form `$name` sketches.
fn pack(json: &Json, sketches: &HashMap<&str, Vec<u8>>, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    match json {
        Json::Null => writer.nil(),
        Json::Bool(value) => writer.bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => writer.int(value),
            None => writer.float(number.as_f64().unwrap()),
        },
        Json::String(text) => match text.strip_prefix('$') {
            Some(name) => writer.particle(particle::HLL, &sketches[name]),
            None => writer.particle(particle::STRING, text.as_bytes()),
        },
        Json::Array(items) => {
            writer.array(items.len() as u32);
            items.iter().for_each(|item| pack(item, sketches, out));
        }
        Json::Object(_) => writer.map(0),
    }
}

/// Bins of sketches by name.
#[derive(Default)]
struct Bins {
    sketches: HashMap<&'static str, Vec<u8>>,
}

impl Bins {
    /// Runs a call on a bin and returns its result.
    fn run(&mut self, name: &'static str, call: Json) -> Result<Json, ResultCode> {
        let mut packed = Vec::new();
        pack(&call, &self.sketches, &mut packed);
        let bytes = CallBytes::of(&packed)?;
        let parsed = HllCall::parse(&bytes)?;
        let old = self.sketches.get(name);
        let result = if parsed.is_modify() {
            let changed = parsed.modify(old.map(Vec::as_slice), LIMIT)?;
            if let Some(value) = changed.value {
                assert!(Sketch::parse(&value).is_ok(), "{call} left no sketch");
                assert_ne!(Some(&value), old, "{call} changed nothing");
                self.sketches.insert(name, value);
            }
            changed.result
        } else {
            Some(parsed.read(old.expect("a bin to read"))?)
        };
        Ok(result.map_or(Json::Null, |bytes| {
            let mut reader = Reader::new(&bytes);
            match reader.read().unwrap() {
                Value::Int(value) => json!(value),
                Value::Float(value) => json!(value),
                Value::Array(2) => json!([reader.read_int().unwrap(), reader.read_int().unwrap()]),
                Value::Str([particle::HLL, sketch @ ..]) => {
                    self.sketches.insert("result", sketch.to_vec());
                    json!("$result")
                }
                other => panic!("{other:?}"),
            }
        }))
    }

    #[track_caller]
    fn gives(&mut self, name: &'static str, call: Json, result: Json) {
        assert_eq!(self.run(name, call.clone()), Ok(result), "{call}");
    }

    #[track_caller]
    fn fails(&mut self, name: &'static str, calls: Json, code: ResultCode) {
        for call in calls.as_array().unwrap() {
            let before = self.sketches.clone();
            assert_eq!(self.run(name, call.clone()), Err(code), "{call}");
            assert_eq!(self.sketches, before);
        }
    }

    fn count(&mut self, name: &'static str) -> u64 {
        self.run(name, json!([50])).unwrap().as_u64().unwrap()
    }
}

fn keys(range: std::ops::Range<u32>) -> Json {
    range.map(|key| json!(format!("key{key}"))).collect()
}

/// The set of jaguar, leopard, lion and tiger as a client's test suite has it.
fn cats() -> Vec<u8> {
    let mut bytes = vec![0; 203];
    for (at, byte) in [(1, 8), (36, 16), (43, 4), (163, 65)] {
        bytes[at] = byte;
    }
    bytes
}

#[test]
fn sketches_are_byte_for_byte_those_of_clients() {
    let mut bins = Bins::default();
    let seen = json!(["jaguar", "tiger", "tiger", "leopard", "lion", "jaguar"]);
    bins.gives("hll", json!([1, seen, 8, -1, 0]), json!(4));
    assert_eq!(bins.sketches["hll"], cats());
    bins.gives("hll", json!([50]), json!(4));
    bins.gives("hll", json!([1, ["tiger"], -1, -1, 0]), json!(0));
}

#[test]
fn counts_are_those_that_clients_expect() {
    let mut bins = Bins::default();
    bins.sketches.insert("cats", cats());
    bins.gives(
        "hll",
        json!([1, ["tiger", "lynx", "cheetah", "tiger"], 8, -1, 0]),
        json!(3),
    );
    bins.gives("hll", json!([2, ["$cats"], 0]), json!(null));
    bins.gives("hll", json!([50]), json!(6));
    bins.gives(
        "more",
        json!([
            1,
            ["leopard", "lynx", "tiger", "tiger", "cheetah", "lynx"],
            8,
            -1,
            0
        ]),
        json!(4),
    );
    bins.gives("more", json!([52, ["$cats"]]), json!(6));
    bins.gives("more", json!([53, ["$cats"]]), json!(2));
    bins.gives(
        "few",
        json!([1, ["tiger", "lynx", "cheetah", "tiger"], 8, -1, 0]),
        json!(3),
    );
    bins.gives(
        "few",
        json!([1, ["lion", "tiger", "puma", "puma"], -1, -1, 0]),
        json!(2),
    );
    bins.gives("few", json!([4, 6]), json!(null));
    bins.gives("few", json!([3]), json!(5));
}

#[test]
fn a_hundred_keys_count_as_97() {
    let mut bins = Bins::default();
    bins.run("hll", json!([1, keys(0..100), 8])).unwrap();
    bins.gives("hll", json!([3]), json!(97));
    let cached = bins.sketches["hll"][3];
    assert_eq!(cached, 97);
    bins.gives("hll", json!([50]), json!(97));
    bins.run("hll", json!([1, keys(100..110)])).unwrap();
    assert_eq!(bins.sketches["hll"][3], 0, "an estimate from before");
    bins.run("big", json!([1, keys(0..1000), 10])).unwrap();
    assert!((967..=1033).contains(&bins.count("big")));
}

#[test]
fn sketches_begin_as_they_are_told() {
    let mut bins = Bins::default();
    bins.gives("hll", json!([0, 10, -1, 0]), json!(null));
    bins.gives("hll", json!([55]), json!([10, 0]));
    bins.gives("hll", json!([50]), json!(0));
    bins.gives("hll", json!([3]), json!(0));
    bins.gives("hll", json!([0, 10, 6, 0]), json!(null));
    bins.gives("hll", json!([55]), json!([10, 6]));
    bins.run("hll", json!([1, ["a"]])).unwrap();
    bins.gives("hll", json!([0, -1, -1, 2]), json!(null));
    bins.gives("hll", json!([55]), json!([10, 6]));
    bins.gives("hll", json!([50]), json!(0));
    bins.fails(
        "hll",
        json!([[0, 12, 0, 1], [1, ["x"], 12, 0, 1]]),
        ResultCode::BinExists,
    );
    bins.gives("hll", json!([0, 12, 0, 5]), json!(null));
    bins.gives("hll", json!([1, ["x"], 12, 0, 5]), json!(null));
    bins.gives("hll", json!([50]), json!(0));
    bins.fails(
        "none",
        json!([[0, 10, 0, 2], [3], [4, 8]]),
        ResultCode::BinNotFound,
    );
    bins.gives("none", json!([0, 10, 0, 6]), json!(null));
    assert!(!bins.sketches.contains_key("none"));
    bins.fails(
        "none",
        json!([[0, -1, 4, 0], [1, ["x"], -1, -1, 0], [1, ["x"]]]),
        ResultCode::OpNotApplicable,
    );
    bins.gives("wide", json!([0, 16, 0, 0]), json!(null));
    bins.fails("wide", json!([[0, -1, 51, 0]]), ResultCode::OpNotApplicable);
}

#[test]
fn bits_and_flags_without_a_meaning_are_refused() {
    let mut bins = Bins::default();
    bins.sketches.insert("cats", cats());
    for (index_bits, minhash_bits) in [
        (3, 0),
        (17, 0),
        (0, 0),
        (4, 3),
        (4, 52),
        (16, 49),
        (17, 48),
        (20, 8),
        (-2, 0),
        (300, 0),
    ] {
        let calls = json!([
            [0, index_bits, minhash_bits, 0],
            [1, ["x"], index_bits, minhash_bits, 0]
        ]);
        bins.fails("cats", calls.clone(), ResultCode::Parameter);
        bins.fails("none", calls, ResultCode::Parameter);
    }
    bins.fails(
        "cats",
        json!([
            [0, 4, 0, 8],
            [1, ["x"], 4, 0, 8],
            [1, ["x"], 4, 0, 2],
            [2, ["$cats"], 16],
            [0, 4, 0, -1],
            [4, 2],
            [4, 17],
            [4],
            [3, 1],
            [2, [], 0],
            [51, []],
            [52, []],
            [53, []],
            [54, []],
            [51, ["x"]],
            [51, [1]],
            [51],
            [1, "x"],
            [1, [["x"]], 8],
            [1, [{}], 8],
            [56, [[]]],
            [5],
            [49],
            [57],
            [],
        ]),
        ResultCode::Parameter,
    );
    let bytes = CallBytes::of(&[0x91, 50]).unwrap();
    let call = HllCall::parse(&bytes).unwrap();
    assert_eq!(
        call.read(b"not a sketch"),
        Err(ResultCode::IncompatibleType)
    );
    let bytes = CallBytes::of(&[0x91, 3]).unwrap();
    let call = HllCall::parse(&bytes).unwrap();
    assert_eq!(
        call.modify(Some(&[]), LIMIT),
        Err(ResultCode::IncompatibleType)
    );
    let bytes = CallBytes::of(&[0x93, 0, 16, 48]).unwrap();
    let call = HllCall::parse(&bytes).unwrap();
    assert_eq!(call.modify(None, 1000), Err(ResultCode::RecordTooBig));
}

#[test]
fn folding_gives_what_a_smaller_sketch_would_have_counted() {
    let mut bins = Bins::default();
    for index_bits in 4..=16 {
        bins.sketches.clear();
        bins.run("hll", json!([1, keys(0..500), 16])).unwrap();
        bins.run("hll", json!([4, index_bits])).unwrap();
        bins.run("small", json!([1, keys(0..500), index_bits]))
            .unwrap();
        assert_eq!(bins.sketches["hll"], bins.sketches["small"], "{index_bits}");
    }
    bins.run("hll", json!([4, 8])).unwrap();
    bins.gives("hll", json!([4, 8]), json!(null));
    bins.fails("hll", json!([[4, 9]]), ResultCode::OpNotApplicable);
    bins.run("minhash", json!([0, 10, 4])).unwrap();
    bins.fails(
        "minhash",
        json!([[4, 8], [4, 10]]),
        ResultCode::OpNotApplicable,
    );
}

#[test]
fn unions_are_sketches_of_the_union() {
    let mut bins = Bins::default();
    bins.run("a", json!([1, keys(0..300), 10, 8])).unwrap();
    bins.run("b", json!([1, keys(200..400), 10, 8])).unwrap();
    bins.run("both", json!([1, keys(0..400), 10, 8])).unwrap();
    bins.gives("a", json!([51, ["$b"]]), json!("$result"));
    assert_eq!(bins.sketches["result"], bins.sketches["both"]);
    bins.run("plain", json!([1, keys(0..400), 10])).unwrap();
    bins.run("c", json!([1, keys(350..360), 12, 8])).unwrap();
    bins.gives("a", json!([51, ["$b", "$c"]]), json!("$result"));
    assert_eq!(bins.sketches["result"], bins.sketches["plain"]);
    bins.fails(
        "a",
        json!([[2, ["$c"], 0], [2, ["$plain"], 0]]),
        ResultCode::OpNotApplicable,
    );
    bins.gives("a", json!([2, ["$c"], 4]), json!(null));
    bins.gives("a", json!([2, ["$b"], 0]), json!(null));
    assert_eq!(bins.sketches["a"], bins.sketches["both"]);
    bins.gives("a", json!([2, ["$b"], 0]), json!(null));
    bins.gives("a", json!([2, ["$c"], 8]), json!(null));
    assert_eq!(bins.sketches["a"], bins.sketches["plain"]);
    bins.fails("a", json!([[2, ["$b"], 1]]), ResultCode::BinExists);
    bins.fails("none", json!([[2, ["$b"], 2]]), ResultCode::BinNotFound);
    // Without a sketch to keep the shape of there is nothing to allow.
    bins.gives("new", json!([2, ["$c", "$both", "$plain"], 0]), json!(null));
    assert_eq!(bins.sketches["new"], bins.sketches["plain"]);
    // A larger one folds into a smaller one without being asked.
    bins.run("small", json!([1, keys(0..5), 8])).unwrap();
    bins.gives("small", json!([2, ["$plain"], 0]), json!(null));
    bins.gives("small", json!([55]), json!([8, 0]));
}

#[test]
fn intersections_of_many_need_minhash_bits() {
    let mut bins = Bins::default();
    for (name, size) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
        bins.run(name, json!([1, keys(0..size), 6, 12])).unwrap();
    }
    bins.gives("e", json!([53, ["$a", "$b", "$c", "$d"]]), json!(1));
    bins.gives("e", json!([54, ["$a", "$b", "$c", "$d"]]), json!(0.2));
    for (name, size) in [("p", 100), ("q", 50), ("r", 80)] {
        bins.run(name, json!([1, keys(0..size), 12])).unwrap();
    }
    bins.fails(
        "p",
        json!([[53, ["$p", "$q", "$r"]], [54, ["$p", "$q", "$a"]]]),
        ResultCode::Parameter,
    );
    bins.fails(
        "p",
        json!([[53, ["$a", "$b", "$c"]], [54, ["$a", "$b", "$c"]]]),
        ResultCode::OpNotApplicable,
    );
    let three = bins
        .run("p", json!([53, ["$q", "$r"]]))
        .unwrap()
        .as_i64()
        .unwrap();
    assert!((45..=55).contains(&three), "{three}");
    let similarity = bins
        .run("q", json!([54, ["$p"]]))
        .unwrap()
        .as_f64()
        .unwrap();
    assert!((similarity - 0.5).abs() < 0.1, "{similarity}");
    bins.run("empty", json!([0, 8])).unwrap();
    bins.gives("empty", json!([54, ["$empty"]]), json!(f64::NAN));
    // A sketch alone is a list of one.
    let alone = bins.run("p", json!([52, "$q"])).unwrap();
    bins.gives("p", json!([52, ["$q"]]), alone);
    bins.gives("empty", json!([53, ["$empty", "$p"]]), json!(0));
}

#[test]
fn what_was_added_may_be_contained() {
    let mut bins = Bins::default();
    bins.run("hll", json!([1, [1, "a", 2.5, true, null], 12, 20]))
        .unwrap();
    bins.gives("hll", json!([56, [1, "a", 2.5, true, null]]), json!(1));
    bins.gives("hll", json!([56, ["a", "b"]]), json!(0));
    // One number has one form.
    let bytes = CallBytes::of(&[0x92, 56, 0x91, 0xcd, 0, 1]).unwrap();
    let call = HllCall::parse(&bytes).unwrap();
    assert_eq!(call.read(&bins.sketches["hll"]), Ok(vec![1]));
}

#[test]
fn calls_say_what_they_are_and_where() {
    let mut packed = Vec::new();
    pack(
        &json!([255, [0x22, "k"], [50]]),
        &HashMap::new(),
        &mut packed,
    );
    let bytes = CallBytes::of(&packed).unwrap();
    let call = HllCall::parse(&bytes).unwrap();
    assert!(!call.is_modify());
    assert_eq!(call.context().len(), 1);
    assert_eq!(call.modify(None, LIMIT), Err(ResultCode::Parameter));
}

#[test]
fn calls_of_a_recorded_client_are_understood() {
    let calls: [(&[u8], bool); 8] = [
        (&[0x94, 0, 8, 0xff, 0], true),
        (&[0x94, 0, 8, 16, 0], true),
        (&[0x95, 1, 0x92, 0xa2, 3, 0x61, 1, 8, 0xff, 0], true),
        (&[0x95, 1, 0x91, 0xa2, 3, 0x61, 8, 16, 0], true),
        (&[0x91, 3], true),
        (&[0x92, 4, 6], true),
        (&[0x91, 50], false),
        (&[0x91, 55], false),
    ];
    for (packed, is_modify) in calls {
        let bytes = CallBytes::of(packed).unwrap();
        let call = HllCall::parse(&bytes).unwrap();
        assert_eq!(call.is_modify(), is_modify, "{packed:x?}");
        let result = match is_modify {
            true => call.modify(Some(&cats()), LIMIT).map(|_| ()),
            false => call.read(&cats()).map(|_| ()),
        };
        assert_eq!(result, Ok(()), "{packed:x?}");
    }
    // A union with a blob that is no sketch.
    let bytes = CallBytes::of(&[0x93, 2, 0x91, 0xa2, 4, 0xaa, 0]).unwrap();
    assert_eq!(HllCall::parse(&bytes).err(), Some(ResultCode::Parameter));
}

fn number(value: u64) -> Vec<u8> {
    let mut packed = Vec::new();
    Writer::new(&mut packed).int(value as i64);
    packed
}

fn sketch_of(shape: Shape, values: impl Iterator<Item = u64>) -> Sketch<Vec<u8>> {
    let mut sketch = Sketch::empty(shape, LIMIT).unwrap();
    values.for_each(|value| {
        sketch.add(&number(value));
    });
    sketch
}

/// Of estimates of twenty sets of each size, the root mean square error is that of the method, and none is beyond four
/// times that.
#[test]
fn estimates_err_as_little_as_the_method_promises() {
    for index_bits in [4, 8, 12, 14] {
        let shape = Shape {
            index_bits,
            minhash_bits: 0,
        };
        let sigma = 1.04 / f64::from(1_u32 << index_bits).sqrt();
        for size in [10_u64, 300, 5_000, 40_000] {
            let errors: Vec<f64> = (0..20)
                .map(|set| {
                    let sketch = sketch_of(shape, (0..size).map(|value| set * 1_000_003 + value));
                    sketch.estimate() as f64 / size as f64 - 1.0
                })
                .collect();
            let mean_square = errors.iter().map(|error| error * error).sum::<f64>() / 20.0;
            // A count is whole: one is a large share of a small set.
            let whole = 1.01 / size as f64;
            assert!(
                mean_square.sqrt() < 1.6 * sigma + whole,
                "{index_bits} bits, {size} values: {errors:?}"
            );
            assert!(
                errors.iter().all(|error| error.abs() < 4.0 * sigma + whole),
                "{index_bits} bits, {size} values: {errors:?}"
            );
        }
    }
}

#[test]
fn similarity_of_sets_is_that_of_their_sketches() {
    for (minhash_bits, allowed) in [(4, 0.03), (16, 0.03), (48, 0.03)] {
        let shape = Shape {
            index_bits: 12,
            minhash_bits,
        };
        for common in [0_u64, 2_000, 50_000, 100_000] {
            let a = sketch_of(shape, 0..100_000);
            let b = sketch_of(shape, 100_000 - common..200_000 - common);
            let expected = common as f64 / (200_000 - common) as f64;
            let found = similarity(&[a, b]);
            assert!(
                (found - expected).abs() < allowed,
                "{minhash_bits} bits: {found}, {expected}"
            );
        }
    }
}

/// Where there is no element there is no share of them: NaN, which JSON has as null.
#[test]
fn sets_without_elements_have_no_similarity() {
    for minhash_bits in [0, 4] {
        let mut bins = Bins::default();
        for name in ["a", "b"] {
            bins.gives(name, json!([0, 8, minhash_bits, 0]), json!(null));
        }
        bins.gives("a", json!([54, ["$b"]]), json!(f64::NAN));
        bins.gives("a", json!([53, ["$b"]]), json!(0));
        bins.gives("b", json!([1, [1], -1, -1, 0]), json!(1));
        bins.gives("a", json!([54, ["$b"]]), json!(0.0));
    }
}

/// With few minhash bits, one register in a hundred is the same by chance.
#[test]
fn sets_without_a_common_element_are_not_similar() {
    let shape = Shape {
        index_bits: 10,
        minhash_bits: 4,
    };
    let mean = (0..10_u64)
        .map(|pair| {
            let first = pair * 1_000_000;
            let a = sketch_of(shape, first..first + 40_000);
            let b = sketch_of(shape, first + 500_000..first + 540_000);
            similarity(&[a, b])
        })
        .sum::<f64>()
        / 10.0;
    assert!(mean < 0.005, "{mean}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn registers_keep_the_most_of_what_was_added(
        index_bits in 4_u8..=16, minhash_bits in prop_oneof![Just(0_u8), 4_u8..=51],
        values in prop::collection::vec(any::<u64>(), 0..200),
    ) {
        let shape = Shape { index_bits, minhash_bits };
        prop_assume!(shape.is_valid());
        let mut model: HashMap<usize, u64> = HashMap::new();
        let mut sketch = Sketch::empty(shape, LIMIT).unwrap();
        for value in &values {
            let (first, second) = murmur::murmur3_x64_128(&number(*value), 0);
            let at = (first % (1 << index_bits)) as usize;
            let minhash = u128::from(first >> index_bits) % (1 << minhash_bits);
            let position = u64::from(second.trailing_zeros()) + 1;
            let register = position << minhash_bits | minhash as u64;
            let kept = model.entry(at).or_default();
            let is_raised = register > *kept;
            *kept = register.max(*kept);
            prop_assert_eq!(sketch.add(&number(*value)), is_raised);
        }
        // Read as a text of ones and zeros, that no arithmetic on words can agree with by mistake.
        let bits: String = sketch.as_bytes()[11..].iter().map(|byte| format!("{byte:08b}")).collect();
        let width = 6 + usize::from(minhash_bits);
        for at in 0..1 << index_bits {
            let kept = model.get(&at).copied().unwrap_or(0);
            let found = u64::from_str_radix(&bits[at * width..(at + 1) * width], 2).unwrap();
            prop_assert_eq!(found, kept, "register {}", at);
        }
        prop_assert!(values.iter().all(|value| sketch.may_contain(&number(*value))));
        prop_assert!(Sketch::parse(sketch.as_bytes()).is_ok());
    }

    #[test]
    fn arbitrary_registers_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 24), others in prop::collection::vec(any::<u8>(), 24), cached in any::<u64>(),
    ) {
        let of = |bytes: &[u8], index_bits, minhash_bits| {
            let mut sketch = Sketch::empty(Shape { index_bits, minhash_bits }, LIMIT).unwrap().into_bytes();
            let all = sketch.len();
            for (at, byte) in sketch[11..all].iter_mut().enumerate() {
                *byte = bytes[at % bytes.len()];
            }
            sketch[3..11].copy_from_slice(&cached.to_le_bytes());
            sketch
        };
        let mut bins = Bins::default();
        bins.sketches.insert("a", of(&bytes, 4, 0));
        bins.sketches.insert("b", of(&others, 5, 0));
        bins.sketches.insert("c", of(&bytes, 4, 51));
        bins.sketches.insert("d", of(&others, 4, 51));
        for name in ["a", "b", "c", "d"] {
            for call in [
                json!([50]), json!([51, ["$a", "$c"]]), json!([52, ["$b"]]), json!([53, ["$a", "$b"]]), json!([54, ["$d"]]), json!([3]),
                json!([1, [1]]), json!([2, ["$b"], 8]),
            ] {
                prop_assert!(bins.run(name, call).is_ok());
            }
        }
    }

    #[test]
    fn arbitrary_calls_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), sketch in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(bytes) = CallBytes::of(&bytes)
            && let Ok(call) = HllCall::parse(&bytes)
        {
            let _ = call.read(&sketch);
            let _ = call.modify(None, LIMIT);
        }
    }
}
