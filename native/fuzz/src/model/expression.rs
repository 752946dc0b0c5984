//! Expressions as a tree of numbers and truths, some of which are not known.

use crate::expressions::Record;
use arbitrary::{Result, Unstructured};
use perigee_engine::expression::{Expression, Trilean, Value};
use perigee_wire::msgpack::Writer;

const DEPTH_MAX: usize = 5;
const SCOPE_MAX: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Bool = 1,
    Int = 2,
    Float = 7,
}

#[derive(Clone, Copy, Debug)]
enum Plain {
    Bool(bool),
    Int(i64),
    Float(f64),
}

#[derive(Debug)]
enum Tree {
    Literal(Plain),
    Unknown,
    /// A bin, and what it holds if it is of this type.
    Bin(Kind, &'static str, Option<Plain>),
    Compare(i64, Box<[Tree; 2]>),
    /// Codes 16, 17 and 19.
    Tests(i64, Vec<Tree>),
    Not(Box<Tree>),
    Number(i64, Vec<Tree>),
    Cond(Vec<(Tree, Tree)>, Box<Tree>),
    /// Variables are named by their place.
    Let(usize, Vec<Tree>, Box<Tree>),
    Variable(usize),
}

const BINS: [(&str, Kind, Plain); 3] = [
    ("i", Kind::Int, Plain::Int(42)),
    ("f", Kind::Float, Plain::Float(2.5)),
    ("o", Kind::Bool, Plain::Bool(true)),
];

fn tree(
    kind: Kind,
    depth: usize,
    scope: &mut Vec<Kind>,
    input: &mut Unstructured<'_>,
) -> Result<Tree> {
    let of = |kind, scope: &mut Vec<Kind>, input: &mut Unstructured<'_>| {
        tree(kind, depth - 1, scope, input)
    };
    if depth == 0 || input.is_empty() || input.ratio(1, 5)? {
        return leaf(kind, scope, input);
    }
    if input.ratio(1, 8)? {
        let mut cases = Vec::new();
        for _ in 0..input.int_in_range(1..=2)? {
            cases.push((of(Kind::Bool, scope, input)?, of(kind, scope, input)?));
        }
        return Ok(Tree::Cond(cases, Box::new(of(kind, scope, input)?)));
    }
    if input.ratio(1, 8)? && scope.len() < SCOPE_MAX {
        let from = scope.len();
        let mut definitions = Vec::new();
        for _ in 0..input.int_in_range(1..=2)? {
            let kind = *input.choose(&[Kind::Bool, Kind::Int, Kind::Float])?;
            definitions.push(of(kind, scope, input)?);
            scope.push(kind);
        }
        let body = of(kind, scope, input);
        scope.truncate(from);
        return Ok(Tree::Let(from, definitions, Box::new(body?)));
    }
    let several = |kind, scope: &mut Vec<Kind>, input: &mut Unstructured<'_>| {
        let count = input.int_in_range(1..=3)?;
        (0..count)
            .map(|_| of(kind, scope, input))
            .collect::<Result<Vec<_>>>()
    };
    match kind {
        Kind::Bool => match input.int_in_range(0..=4)? {
            0 => Ok(Tree::Not(Box::new(of(kind, scope, input)?))),
            1 | 2 => {
                let code = *input.choose(&[16, 17, 19])?;
                Ok(Tree::Tests(code, several(kind, scope, input)?))
            }
            _ => {
                let code = input.int_in_range(1..=6)?;
                let kind = *input.choose(&[Kind::Bool, Kind::Int, Kind::Float])?;
                let sides = [of(kind, scope, input)?, of(kind, scope, input)?];
                Ok(Tree::Compare(code, Box::new(sides)))
            }
        },
        Kind::Int => {
            let code = *input.choose(&[
                20, 21, 22, 23, 26, 27, 30, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 50, 51,
            ])?;
            let operands = match code {
                20..=23 | 32..=34 | 50 | 51 => several(kind, scope, input)?,
                27 | 35 | 39 => vec![of(kind, scope, input)?],
                30 => vec![of(Kind::Float, scope, input)?],
                40 | 41 => vec![of(kind, scope, input)?, of(Kind::Bool, scope, input)?],
                _ => vec![of(kind, scope, input)?, of(kind, scope, input)?],
            };
            Ok(Tree::Number(code, operands))
        }
        Kind::Float => {
            // Not the lesser or greater of two, which may be either of two zeros.
            let code = *input.choose(&[20, 21, 22, 23, 24, 25, 27, 28, 29, 31])?;
            let operands = match code {
                20..=23 => several(kind, scope, input)?,
                27..=29 => vec![of(kind, scope, input)?],
                31 => vec![of(Kind::Int, scope, input)?],
                _ => vec![of(kind, scope, input)?, of(kind, scope, input)?],
            };
            Ok(Tree::Number(code, operands))
        }
    }
}

fn leaf(kind: Kind, scope: &[Kind], input: &mut Unstructured<'_>) -> Result<Tree> {
    let known: Vec<usize> = (0..scope.len()).filter(|at| scope[*at] == kind).collect();
    Ok(match input.int_in_range(0..=9)? {
        0 => Tree::Unknown,
        1 => Tree::Bin(kind, "none", None),
        2 | 3 => {
            let (name, found, value) = *input.choose(&BINS)?;
            Tree::Bin(kind, name, (found == kind).then_some(value))
        }
        4 | 5 if !known.is_empty() => Tree::Variable(*input.choose(&known)?),
        _ => Tree::Literal(match kind {
            Kind::Bool => Plain::Bool(input.arbitrary()?),
            Kind::Int => Plain::Int(match input.int_in_range(0..=4)? {
                0 => input.arbitrary()?,
                1 => *input.choose(&[i64::MIN, i64::MAX, 63, 64])?,
                _ => input.int_in_range(-4..=9)?,
            }),
            Kind::Float => Plain::Float(match input.int_in_range(0..=3)? {
                0 => *input.choose(&[0.0, -0.0, f64::INFINITY, f64::NAN, 1e300, -9.3e18])?,
                _ => f64::from(input.arbitrary::<i8>()?) / 4.0,
            }),
        }),
    })
}

fn variable(at: usize) -> String {
    format!("v{at}")
}

impl Tree {
    fn write(&self, out: &mut Vec<u8>) {
        let operation = |out: &mut Vec<u8>, code: i64, parts: usize| {
            Writer::new(out).array(1 + parts as u32);
            Writer::new(out).int(code);
        };
        match self {
            Tree::Literal(Plain::Bool(value)) => Writer::new(out).bool(*value),
            Tree::Literal(Plain::Int(value)) => Writer::new(out).int(*value),
            Tree::Literal(Plain::Float(value)) => Writer::new(out).float(*value),
            Tree::Unknown => operation(out, 0, 0),
            Tree::Bin(kind, name, _) => {
                operation(out, 81, 2);
                Writer::new(out).int(*kind as i64);
                Writer::new(out).raw_str(name.as_bytes());
            }
            Tree::Compare(code, sides) => {
                operation(out, *code, 2);
                sides.iter().for_each(|side| side.write(out));
            }
            Tree::Tests(code, parts) | Tree::Number(code, parts) => {
                operation(out, *code, parts.len());
                parts.iter().for_each(|part| part.write(out));
            }
            Tree::Not(test) => {
                operation(out, 18, 1);
                test.write(out);
            }
            Tree::Cond(cases, default) => {
                operation(out, 123, 2 * cases.len() + 1);
                for (test, then) in cases {
                    test.write(out);
                    then.write(out);
                }
                default.write(out);
            }
            Tree::Let(from, definitions, body) => {
                operation(out, 125, 2 * definitions.len() + 1);
                for (at, definition) in definitions.iter().enumerate() {
                    Writer::new(out).raw_str(variable(from + at).as_bytes());
                    definition.write(out);
                }
                body.write(out);
            }
            Tree::Variable(at) => {
                operation(out, 124, 1);
                Writer::new(out).raw_str(variable(*at).as_bytes());
            }
        }
    }

    /// None of what is not known.
    fn value(&self, variables: &mut Vec<Plain>) -> Option<Plain> {
        Some(match self {
            Tree::Literal(value) => *value,
            Tree::Unknown => return None,
            Tree::Bin(_, _, value) => (*value)?,
            Tree::Variable(at) => variables[*at],
            Tree::Compare(code, sides) => {
                let left = sides[0].value(variables)?;
                let right = sides[1].value(variables)?;
                Plain::Bool(holds(*code, left, right))
            }
            Tree::Not(test) => Plain::Bool(!test.truth(variables)?),
            Tree::Tests(code, tests) => {
                let truths: Vec<Option<bool>> =
                    tests.iter().map(|test| test.truth(variables)).collect();
                let is = |wanted| truths.contains(&Some(wanted));
                let is_known = truths.iter().all(Option::is_some);
                let holding = truths.iter().filter(|truth| **truth == Some(true)).count();
                Plain::Bool(match code {
                    16 if is(false) => false,
                    17 if is(true) => true,
                    19 if holding > 1 => false,
                    _ if !is_known => return None,
                    16 => true,
                    17 => false,
                    _ => holding == 1,
                })
            }
            Tree::Cond(cases, default) => {
                for (test, then) in cases {
                    if test.truth(variables)? {
                        return then.value(variables);
                    }
                }
                default.value(variables)?
            }
            Tree::Let(from, definitions, body) => {
                for definition in definitions {
                    let Some(value) = definition.value(variables) else {
                        variables.truncate(*from);
                        return None;
                    };
                    variables.push(value);
                }
                let value = body.value(variables);
                variables.truncate(*from);
                value?
            }
            Tree::Number(code, operands) => {
                let mut values = Vec::new();
                for operand in operands {
                    values.push(operand.value(variables)?);
                }
                number(*code, &values)?
            }
        })
    }

    fn truth(&self, variables: &mut Vec<Plain>) -> Option<bool> {
        match self.value(variables)? {
            Plain::Bool(value) => Some(value),
            other => panic!("{other:?} is no truth"),
        }
    }
}

fn holds(code: i64, left: Plain, right: Plain) -> bool {
    let order = match (left, right) {
        (Plain::Bool(a), Plain::Bool(b)) => Some(a.cmp(&b)),
        (Plain::Int(a), Plain::Int(b)) => Some(a.cmp(&b)),
        (Plain::Float(a), Plain::Float(b)) => a.partial_cmp(&b),
        other => panic!("{other:?} are not compared"),
    };
    match (code, order) {
        (2, None) => true,
        (_, None) => false,
        (1, Some(order)) => order.is_eq(),
        (2, Some(order)) => order.is_ne(),
        (3, Some(order)) => order.is_gt(),
        (4, Some(order)) => order.is_ge(),
        (5, Some(order)) => order.is_lt(),
        (_, Some(order)) => order.is_le(),
    }
}

fn number(code: i64, values: &[Plain]) -> Option<Plain> {
    match (code, values) {
        (40 | 41, [Plain::Int(value), Plain::Bool(wanted)]) => {
            // Counted from the most significant bit.
            let mut bits = (0..64).map(|at| value >> (63 - at) & 1 == 1);
            let found = match code {
                40 => bits.position(|bit| bit == *wanted),
                _ => bits.rposition(|bit| bit == *wanted),
            };
            Some(Plain::Int(found.map_or(-1, |at| at as i64)))
        }
        (30, [Plain::Float(value)]) => {
            let whole = value.trunc();
            let fits = (-(2_f64.powi(63))..2_f64.powi(63)).contains(&whole);
            fits.then_some(Plain::Int(whole as i64))
        }
        (31, [Plain::Int(value)]) => Some(Plain::Float(*value as f64)),
        (_, [Plain::Int(_), ..]) => {
            let ints = values.iter().map(|value| match value {
                Plain::Int(value) => *value,
                other => panic!("{other:?} among integers"),
            });
            integers(code, &ints.collect::<Vec<_>>()).map(Plain::Int)
        }
        _ => {
            let floats = values.iter().map(|value| match value {
                Plain::Float(value) => *value,
                other => panic!("{other:?} among floats"),
            });
            Some(Plain::Float(floats_of(code, &floats.collect::<Vec<_>>())))
        }
    }
}

fn integers(code: i64, values: &[i64]) -> Option<i64> {
    let first = values[0];
    if let [value] = values {
        return match code {
            21 => Some(0_i64.wrapping_sub(*value)),
            23 if *value == 0 => None,
            23 => Some(1_i64.wrapping_div(*value)),
            27 => Some(if *value < 0 {
                0_i64.wrapping_sub(*value)
            } else {
                *value
            }),
            35 => Some(-1 ^ *value),
            39 => Some((0..64).filter(|at| value >> at & 1 == 1).count() as i64),
            _ => Some(*value),
        };
    }
    let mut result = first;
    for value in &values[1..] {
        let (a, b) = (result, *value);
        let by = u32::try_from(b).ok();
        result = match code {
            20 => a.wrapping_add(b),
            21 => a.wrapping_sub(b),
            22 => a.wrapping_mul(b),
            23 if b == 0 => return None,
            23 => a.wrapping_div(b),
            26 if b == 0 => return None,
            26 => a.wrapping_rem(b),
            32 => a & b,
            33 => a | b,
            34 => a ^ b,
            36..=38 if b < 0 => return None,
            36 => by.and_then(|by| a.checked_shl(by)).unwrap_or(0),
            37 => by.and_then(|by| (a as u64).checked_shr(by)).unwrap_or(0) as i64,
            38 if b > 63 => {
                if a < 0 {
                    -1
                } else {
                    0
                }
            }
            38 => a >> b,
            50 => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            51 => {
                if b > a {
                    b
                } else {
                    a
                }
            }
            other => panic!("operation {other} on integers"),
        };
    }
    Some(result)
}

fn floats_of(code: i64, values: &[f64]) -> f64 {
    if let [value] = values {
        return match code {
            21 => -value,
            23 => 1.0 / value,
            27 => value.abs(),
            28 => value.floor(),
            29 => value.ceil(),
            _ => *value,
        };
    }
    let of_two = |a: f64, b: f64| match code {
        20 => a + b,
        21 => a - b,
        22 => a * b,
        23 => a / b,
        24 => a.powf(b),
        25 => a.ln() / b.ln(),
        other => panic!("operation {other} on floats"),
    };
    values[1..].iter().fold(values[0], |a, b| of_two(a, *b))
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(kind) = input.choose(&[Kind::Bool, Kind::Int, Kind::Float]).copied() else {
        return;
    };
    // An input that ends gives no expression.
    let Ok(tree) = tree(kind, DEPTH_MAX, &mut Vec::new(), &mut input) else {
        return;
    };
    let mut bytes = Vec::new();
    tree.write(&mut bytes);
    let expression =
        Expression::compile(&bytes).unwrap_or_else(|code| panic!("{code:?} of {tree:?}"));
    let record = Record::plain();
    let expected = tree.value(&mut Vec::new());
    let found = expression.eval(&record).ok();
    let is_same = match (&found, expected) {
        (None, None) => true,
        (Some(Value::Bool(found)), Some(Plain::Bool(expected))) => *found == expected,
        (Some(Value::Int(found)), Some(Plain::Int(expected))) => *found == expected,
        (Some(Value::Float(found)), Some(Plain::Float(expected))) => {
            *found == expected || (found.is_nan() && expected.is_nan())
        }
        _ => false,
    };
    assert!(is_same, "{found:?}, expected {expected:?}, of {tree:?}");
    if kind == Kind::Bool {
        let filter = Expression::compile_filter(&bytes).expect("a truth");
        let expected = match expected {
            Some(Plain::Bool(true)) => Trilean::True,
            Some(_) => Trilean::False,
            None => Trilean::Unknown,
        };
        assert_eq!(filter.filter(&record), expected, "of {tree:?}");
    }
}
