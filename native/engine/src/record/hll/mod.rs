//! Operations on HyperLogLog sketches (section 14): how many distinct elements, in one sketch, in several, in all of several.
//!
//! An operation works on the bytes of a sketch and nothing else, so that one in a list or map is served like a bin: the way
//! to it is [`HllCall::context`].

mod murmur;
mod sketch;
#[cfg(test)]
mod tests;

use super::cdt::{Call, CallBytes, Step};
use perigee_wire::msgpack::{Reader, Value, Writer};
use perigee_wire::{ResultCode, particle_type as particle};
use sketch::similarity;
pub(crate) use sketch::{Shape, Sketch};

/// Sketches whose intersection is estimated without minhash bits, beside the bin's own: the error of what is added up from
/// the counts of their unions grows with each.
const PLAIN_INTERSECTION_MAX: usize = 2;

/// "As the sketch is", or 0 minhash bits for a new one.
const UNSET: i64 = -1;

mod policy {
    pub const CREATE_ONLY: u64 = 1;
    pub const UPDATE_ONLY: u64 = 2;
    pub const NO_FAIL: u64 = 4;
    pub const ALLOW_FOLD: u64 = 8;

    pub const OF_INIT: u64 = CREATE_ONLY | UPDATE_ONLY | NO_FAIL;
    pub const OF_ADD: u64 = CREATE_ONLY | NO_FAIL;
    pub const OF_UNION: u64 = CREATE_ONLY | UPDATE_ONLY | NO_FAIL | ALLOW_FOLD;
}

/// A checked operation on a sketch.
#[derive(Debug)]
pub struct HllCall<'a> {
    context: Vec<Step<'a>>,
    operation: Operation<'a>,
    policy: u64,
}

/// What an operation made of a sketch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// The new sketch; None if it is the old one, or still missing.
    pub value: Option<Vec<u8>>,
    /// One msgpack value; None where the operation has no result.
    pub result: Option<Vec<u8>>,
}

type Given<'a> = Sketch<&'a [u8]>;

#[derive(Debug)]
enum Operation<'a> {
    Init(Wish),
    Add { elements: Vec<&'a [u8]>, wish: Wish },
    SetUnion(Vec<Given<'a>>),
    RefreshCount,
    Fold { index_bits: u8 },
    Count,
    Union(Vec<Given<'a>>),
    UnionCount(Vec<Given<'a>>),
    IntersectCount(Vec<Given<'a>>),
    Similarity(Vec<Given<'a>>),
    Describe,
    MayContain(Vec<&'a [u8]>),
}

/// The bits that a call names.
#[derive(Clone, Copy, Debug)]
struct Wish {
    index_bits: Option<u8>,
    minhash_bits: Option<u8>,
}

impl<'a> HllCall<'a> {
    /// PARAMETER if there is no such operation, or its arguments are wrong whatever the bin holds.
    pub fn parse(bytes: &'a CallBytes) -> Result<HllCall<'a>, ResultCode> {
        let mut call = Call::parse(bytes)?;
        let context = std::mem::take(&mut call.context);
        let operation = match call.code {
            0 => Operation::Init(Wish::parse(&mut call)?),
            1 => Operation::Add {
                elements: elements(&mut call)?,
                wish: Wish::parse(&mut call)?,
            },
            2 => Operation::SetUnion(sketches(&mut call)?),
            3 => Operation::RefreshCount,
            4 => {
                let shape = Shape {
                    index_bits: u8::try_from(call.int()?).map_err(|_| ResultCode::Parameter)?,
                    minhash_bits: 0,
                };
                if !shape.is_valid() {
                    return Err(ResultCode::Parameter);
                }
                Operation::Fold {
                    index_bits: shape.index_bits,
                }
            }
            50 => Operation::Count,
            51 => Operation::Union(sketches(&mut call)?),
            52 => Operation::UnionCount(sketches(&mut call)?),
            53 => Operation::IntersectCount(intersected(&mut call)?),
            54 => Operation::Similarity(intersected(&mut call)?),
            55 => Operation::Describe,
            56 => Operation::MayContain(elements(&mut call)?),
            _ => return Err(ResultCode::Parameter),
        };
        let allowed = match operation {
            Operation::Init(_) => policy::OF_INIT,
            Operation::Add { .. } => policy::OF_ADD,
            Operation::SetUnion(_) => policy::OF_UNION,
            _ => 0,
        };
        let policy = if allowed == 0 { 0 } else { call.flags()? };
        call.finish()?;
        if policy & !allowed != 0 {
            return Err(ResultCode::Parameter);
        }
        Ok(HllCall {
            context,
            operation,
            policy,
        })
    }

    /// The way from the bin to the sketch; empty if the bin is the sketch.
    pub fn context(&self) -> &[Step<'a>] {
        &self.context
    }

    pub fn is_modify(&self) -> bool {
        matches!(
            self.operation,
            Operation::Init(_)
                | Operation::Add { .. }
                | Operation::SetUnion(_)
                | Operation::RefreshCount
                | Operation::Fold { .. }
        )
    }

    /// The result of a reading operation on the bytes of a sketch, one msgpack value. INCOMPATIBLE_TYPE if they are none;
    /// OP_NOT_APPLICABLE if it is of another shape than the sketches that it is to be intersected with, and those are many.
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<u8>, ResultCode> {
        let own = stored(bytes)?;
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        match &self.operation {
            Operation::Count => writer.int(clamped(own.estimate())),
            Operation::Union(given) => {
                writer.particle(particle::HLL, union_with(&own, given).as_bytes());
            }
            Operation::UnionCount(given) => {
                writer.int(clamped(union_with(&own, given).fresh_estimate()));
            }
            Operation::IntersectCount(given) => {
                writer.int(clamped(intersection(&own, given)?.count));
            }
            Operation::Similarity(given) => writer.float(intersection(&own, given)?.similarity),
            Operation::Describe => {
                let shape = own.shape();
                writer.array(2);
                writer.int(shape.index_bits.into());
                writer.int(shape.minhash_bits.into());
            }
            Operation::MayContain(elements) => {
                let all = elements.iter().all(|element| own.may_contain(element));
                writer.int(all.into());
            }
            _ => return Err(ResultCode::Parameter),
        }
        Ok(out)
    }

    /// What a modifying operation makes of a sketch, or of none. BIN_EXISTS and BIN_NOT_FOUND as the policy says and where
    /// the operation makes no sketch; RECORD_TOO_BIG if it would exceed `bytes_max`; OP_NOT_APPLICABLE if a new sketch has
    /// no index bits to begin with, or the change would lose what the policy keeps.
    pub fn modify(&self, bytes: Option<&[u8]>, bytes_max: usize) -> Result<Changed, ResultCode> {
        if !self.is_modify() {
            return Err(ResultCode::Parameter);
        }
        let old = bytes.map(stored).transpose()?;
        match self.modified(old, bytes_max) {
            Err(_) if self.has(policy::NO_FAIL) => Ok(Changed::default()),
            result => result,
        }
    }

    fn has(&self, flag: u64) -> bool {
        self.policy & flag != 0
    }

    fn modified(&self, old: Option<Given<'_>>, bytes_max: usize) -> Result<Changed, ResultCode> {
        if old.is_some() && self.has(policy::CREATE_ONLY) {
            return Err(ResultCode::BinExists);
        }
        if old.is_none() && self.has(policy::UPDATE_ONLY) {
            return Err(ResultCode::BinNotFound);
        }
        match &self.operation {
            Operation::Init(wish) => {
                let shape = wish.shape(old.as_ref().map(Sketch::shape))?;
                Ok(changed(Sketch::empty(shape, bytes_max)?))
            }
            Operation::Add { elements, wish } => add(old, elements, *wish, bytes_max),
            Operation::SetUnion(given) => {
                let Some(old) = old else {
                    let [first, rest @ ..] = given.as_slice() else {
                        return Err(ResultCode::Parameter);
                    };
                    let union = union_with(first, rest);
                    if union.as_bytes().len() > bytes_max {
                        return Err(ResultCode::RecordTooBig);
                    }
                    return Ok(changed(union));
                };
                let union = union_with(&old, given);
                if union.shape() != old.shape() && !self.has(policy::ALLOW_FOLD) {
                    return Err(ResultCode::OpNotApplicable);
                }
                if union.counts_as(&old) {
                    return Ok(Changed::default());
                }
                Ok(changed(union))
            }
            Operation::RefreshCount => {
                let old = old.ok_or(ResultCode::BinNotFound)?;
                let count = old.estimate();
                let mut value = None;
                if old.cached() != count {
                    let mut new = old.to_owned();
                    new.set_cached(count);
                    value = Some(new.into_bytes());
                }
                Ok(Changed {
                    value,
                    result: Some(integer(count)),
                })
            }
            Operation::Fold { index_bits } => {
                let old = old.ok_or(ResultCode::BinNotFound)?;
                let shape = old.shape();
                if shape.minhash_bits != 0 || *index_bits > shape.index_bits {
                    return Err(ResultCode::OpNotApplicable);
                }
                if *index_bits == shape.index_bits {
                    return Ok(Changed::default());
                }
                let folded = Shape {
                    index_bits: *index_bits,
                    minhash_bits: 0,
                };
                Ok(changed(Sketch::union(folded, &[old])))
            }
            _ => Err(ResultCode::Parameter),
        }
    }
}

impl Wish {
    /// PARAMETER for bits that no sketch has, alone or together.
    fn parse(call: &mut Call<'_>) -> Result<Wish, ResultCode> {
        let mut bits = || match call.int_or(UNSET)? {
            UNSET => Ok(None),
            bits => u8::try_from(bits)
                .map(Some)
                .map_err(|_| ResultCode::Parameter),
        };
        let wish = Wish {
            index_bits: bits()?,
            minhash_bits: bits()?,
        };
        // Each alone beside the least of the other.
        let alone = Shape {
            index_bits: wish.index_bits.unwrap_or(4),
            minhash_bits: wish.minhash_bits.unwrap_or(0),
        };
        if alone.is_valid() {
            Ok(wish)
        } else {
            Err(ResultCode::Parameter)
        }
    }

    /// What is not named is as it was. OP_NOT_APPLICABLE if that is nothing, or does not go with what is named.
    fn shape(self, old: Option<Shape>) -> Result<Shape, ResultCode> {
        let index_bits = self.index_bits.or(old.map(|old| old.index_bits));
        let minhash_bits = self.minhash_bits.or(old.map(|old| old.minhash_bits));
        let shape = Shape {
            index_bits: index_bits.ok_or(ResultCode::OpNotApplicable)?,
            minhash_bits: minhash_bits.unwrap_or(0),
        };
        if shape.is_valid() {
            Ok(shape)
        } else {
            Err(ResultCode::OpNotApplicable)
        }
    }
}

/// The bits that a call names count for a new sketch alone.
fn add(
    old: Option<Given<'_>>,
    elements: &[&[u8]],
    wish: Wish,
    bytes_max: usize,
) -> Result<Changed, ResultCode> {
    let is_new = old.is_none();
    let mut sketch = match old {
        Some(old) => old.to_owned(),
        None => Sketch::empty(wish.shape(None)?, bytes_max)?,
    };
    let mut raised = 0;
    for element in elements {
        raised += u64::from(sketch.add(element));
    }
    if raised > 0 {
        sketch.set_cached(0);
    }
    Ok(Changed {
        value: (is_new || raised > 0).then(|| sketch.into_bytes()),
        result: Some(integer(raised)),
    })
}

fn changed(sketch: Sketch<Vec<u8>>) -> Changed {
    Changed {
        value: Some(sketch.into_bytes()),
        result: None,
    }
}

fn stored(bytes: &[u8]) -> Result<Given<'_>, ResultCode> {
    Sketch::parse(bytes).map_err(|_| ResultCode::IncompatibleType)
}

fn union_with(own: &Given<'_>, given: &[Given<'_>]) -> Sketch<Vec<u8>> {
    let mut all = vec![own.clone()];
    all.extend_from_slice(given);
    let shape = all
        .iter()
        .fold(own.shape(), |shape, sketch| shape.common(sketch.shape()));
    Sketch::union(shape, &all)
}

struct Intersection {
    count: u64,
    /// The share of the union that all have; of nothing there is none (NaN).
    similarity: f64,
}

fn intersection(own: &Given<'_>, given: &[Given<'_>]) -> Result<Intersection, ResultCode> {
    let union = union_with(own, given);
    let total = union.fresh_estimate();
    if union.shape().minhash_bits > 0 {
        let mut all = vec![own.clone()];
        all.extend_from_slice(given);
        let similarity = similarity(&all);
        return Ok(Intersection {
            count: (similarity * total as f64).round() as u64,
            similarity,
        });
    }
    let mut all: Vec<Sketch<Vec<u8>>> = Vec::with_capacity(1 + PLAIN_INTERSECTION_MAX);
    for sketch in std::iter::once(own).chain(given) {
        if all.len() > PLAIN_INTERSECTION_MAX {
            return Err(ResultCode::OpNotApplicable);
        }
        all.push(Sketch::union(union.shape(), std::slice::from_ref(sketch)));
    }
    // What is in all sets is what they have together, less what those without one of them have, and so on.
    let alone = |at: usize| all[at].fresh_estimate() as i128;
    let pair = |a: usize, b: usize| {
        Sketch::union(union.shape(), &[all[a].clone(), all[b].clone()]).fresh_estimate() as i128
    };
    let total = i128::from(total);
    let count = match all.len() {
        2 => alone(0) + alone(1) - total,
        _ => alone(0) + alone(1) + alone(2) - pair(0, 1) - pair(0, 2) - pair(1, 2) + total,
    };
    let count = count.clamp(0, total) as u64;
    Ok(Intersection {
        count,
        similarity: match total {
            0 => f64::NAN,
            _ => count as f64 / total as f64,
        },
    })
}

/// A list of elements, in canonical form. PARAMETER for those that have elements themselves.
fn elements<'a>(call: &mut Call<'a>) -> Result<Vec<&'a [u8]>, ResultCode> {
    let elements = items(call.value()?)?;
    for element in &elements {
        match Reader::new(element).read() {
            Ok(Value::Array(_) | Value::Map(_) | Value::Ext(..)) | Err(_) => {
                return Err(ResultCode::Parameter);
            }
            Ok(_) => {}
        }
    }
    Ok(elements)
}

/// A list of sketches, one at least, or a sketch alone, as another bin is in an expression. Some clients send them as blobs.
fn sketches<'a>(call: &mut Call<'a>) -> Result<Vec<Given<'a>>, ResultCode> {
    let value = call.value()?;
    let sketch = |item: &'a [u8]| match Reader::new(item).read_particle() {
        Ok((particle::HLL | particle::BLOB, bytes)) => {
            Sketch::parse(bytes).map_err(|_| ResultCode::Parameter)
        }
        _ => Err(ResultCode::Parameter),
    };
    if let Ok(alone) = sketch(value) {
        return Ok(vec![alone]);
    }
    let given: Vec<Given<'a>> = items(value)?
        .into_iter()
        .map(sketch)
        .collect::<Result<_, _>>()?;
    if given.is_empty() {
        Err(ResultCode::Parameter)
    } else {
        Ok(given)
    }
}

/// Sketches that can be intersected: a few of any kind, or any number of one shape with minhash bits.
fn intersected<'a>(call: &mut Call<'a>) -> Result<Vec<Given<'a>>, ResultCode> {
    let given = sketches(call)?;
    let shape = given[0].shape();
    let is_one = given.iter().all(|sketch| sketch.shape() == shape);
    if given.len() > PLAIN_INTERSECTION_MAX && (shape.minhash_bits == 0 || !is_one) {
        return Err(ResultCode::Parameter);
    }
    Ok(given)
}

fn items(list: &[u8]) -> Result<Vec<&[u8]>, ResultCode> {
    let mut reader = Reader::new(list);
    let counted = reader.read_array().map_err(|_| ResultCode::Parameter)?;
    let (items, _) = perigee_wire::msgpack::read_order(&mut reader, counted, false)
        .map_err(|_| ResultCode::Parameter)?;
    (0..items)
        .map(|_| reader.skip().map_err(|_| ResultCode::Parameter))
        .collect()
}

fn integer(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).int(clamped(value));
    out
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
