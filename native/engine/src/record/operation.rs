//! Bin operations of one request, applied in order to one record. Atomicity is the caller's: it holds the partition's
//! lock and stores the outcome as one version, or nothing.

use perigee_wire::{
    BIN_NAME_BYTES_MAX, BINS_MAX, Message, Op, ReplyWriter, ResultCode, info1, info2, info3, op,
    particle_type as particle, validate_particle,
};

use std::borrow::Cow;
use std::collections::HashMap;

use super::bin_operation::{self, BinValue, Change};
use super::cdt::index_of;
use super::geo::{CoveringLimits, stored as stored_location};
use super::image::{Bin, ImageBuilder, ImageView};
use crate::expression::{Lookup, Metadata, RecordView};
use crate::filter::StoredRecord;
use perigee_wire::msgpack::{canonical, has_sentinel};

/// Bins up to which a name is looked for one by one; beyond, through a map, so that a request with many operations on a
/// record with many bins stays linear while it holds the partition's lock.
const LINEAR_BINS_MAX: usize = 32;

/// Bytes of results that one request may ask for: operations may name the same large bin again and again.
const RESULT_BYTES_MAX: usize = 32 << 20;

/// A record while a request works on it: bins of the old version stay borrowed until an operation replaces them.
pub struct WorkingRecord<'a> {
    /// A bin that was removed keeps its place with particle NULL, so that positions stay.
    bins: Vec<WorkingBin<'a>>,
    /// Bins that are not NULL.
    live: usize,
    /// Positions by name; kept once there are more than `LINEAR_BINS_MAX`.
    by_name: HashMap<&'a [u8], usize>,
    /// Bytes that a value may grow to.
    bytes_max: usize,
}

struct WorkingBin<'a> {
    name: &'a [u8],
    particle: u8,
    value: Value<'a>,
    /// Of a large list or map.
    index: Option<Cow<'a, [u8]>>,
}

enum Value<'a> {
    Borrowed(&'a [u8]),
    Number([u8; 8]),
    Owned(Vec<u8>),
}

impl Value<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Value::Borrowed(bytes) => bytes,
            Value::Number(bytes) => bytes,
            Value::Owned(bytes) => bytes,
        }
    }
}

impl<'a> WorkingRecord<'a> {
    /// A record without bins. No value in it may grow past `bytes_max` bytes.
    pub fn empty(bytes_max: usize) -> Self {
        let (bins, by_name) = (Vec::with_capacity(8), HashMap::new());
        WorkingRecord {
            bins,
            live: 0,
            by_name,
            bytes_max,
        }
    }

    /// The record that an image holds.
    pub fn of(image: &ImageView<'a>, bytes_max: usize) -> Self {
        let bins: Vec<_> = image
            .bins()
            .map(|bin| WorkingBin {
                name: bin.name,
                particle: bin.particle,
                value: Value::Borrowed(bin.value),
                index: bin.index.map(Cow::Borrowed),
            })
            .collect();
        let mut record = WorkingRecord {
            live: bins.len(),
            bins,
            by_name: HashMap::new(),
            bytes_max,
        };
        record.index_from(0);
        record
    }

    /// Keeps the map of names, from the bin at `from` on.
    fn index_from(&mut self, from: usize) {
        if self.bins.len() > LINEAR_BINS_MAX {
            let from = if self.by_name.is_empty() { 0 } else { from };
            let names = self.bins[from..].iter().enumerate();
            self.by_name
                .extend(names.map(|(at, bin)| (bin.name, from + at)));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Writes the bins into an image that is being built.
    pub fn build(&self, image: &mut ImageBuilder<'_>) {
        for bin in self.live_bins() {
            let index = bin.index.as_deref();
            image.indexed_bin(bin.name, bin.particle, bin.value.bytes(), index);
        }
    }

    fn live_bins(&self) -> impl Iterator<Item = &WorkingBin<'a>> {
        self.bins
            .iter()
            .filter(|bin| bin.particle != particle::NULL)
    }

    /// Sets a bin, or removes it when the particle is NULL.
    pub fn set(&mut self, name: &'a [u8], particle: u8, value: &'a [u8]) -> Result<(), ResultCode> {
        check_bin_name(name)?;
        if particle == particle::NULL {
            self.remove(name);
            return Ok(());
        }
        validate_particle(particle, value).map_err(|error| error.result_code())?;
        let value = match particle {
            particle::LIST | particle::MAP => stored_container(value)?,
            particle::GEOJSON => Value::Owned(stored_location(value, &CoveringLimits::default())?),
            _ => Value::Borrowed(value),
        };
        self.put(name, particle, value)
    }

    /// Applies a modifying operation that looks into what a bin holds, and returns its result.
    fn modify(
        &mut self,
        operation: &Op<'a>,
        context: &OperationContext<'_>,
    ) -> Result<Option<BinValue<'static>>, ResultCode> {
        check_bin_name(operation.name)?;
        let view = WorkingView {
            record: self,
            context,
        };
        let bin = self.bin(operation.name);
        let (change, result) = bin_operation::modify(operation, bin, &view, self.bytes_max)?;
        match change {
            Change::Nothing => {}
            Change::Removed => self.remove(operation.name),
            Change::To(_, bytes, _) if bytes.len() > self.bytes_max => {
                return Err(ResultCode::RecordTooBig);
            }
            Change::To(kind, bytes, index) => {
                self.put_with(operation.name, kind, Value::Owned(bytes), index)?;
            }
        }
        Ok(result)
    }

    fn bin(&self, name: &[u8]) -> Option<Bin<'_>> {
        let bin = &self.bins[self.live_position(name)?];
        Some(Bin {
            name: bin.name,
            particle: bin.particle,
            value: bin.value.bytes(),
            index: bin.index.as_deref(),
        })
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(at) = self.live_position(name) {
            self.bins[at].particle = particle::NULL;
            self.bins[at].value = Value::Borrowed(&[]);
            self.bins[at].index = None;
            self.live -= 1;
        }
    }

    fn put(&mut self, name: &'a [u8], particle: u8, value: Value<'a>) -> Result<(), ResultCode> {
        self.put_with(name, particle, value, None)
    }

    /// As `put`, with the index of a list or map; without one it is made, if it pays.
    fn put_with(
        &mut self,
        name: &'a [u8],
        particle: u8,
        value: Value<'a>,
        index: Option<Vec<u8>>,
    ) -> Result<(), ResultCode> {
        let index = match particle {
            particle::LIST | particle::MAP => index.or_else(|| index_of(value.bytes())),
            _ => None,
        };
        let index = index.map(Cow::Owned);
        match self.position(name) {
            Some(at) => {
                self.live += usize::from(self.bins[at].particle == particle::NULL);
                self.bins[at].particle = particle;
                self.bins[at].value = value;
                self.bins[at].index = index;
            }
            None if self.bins.len() == BINS_MAX => return Err(ResultCode::Parameter),
            None => {
                self.bins.push(WorkingBin {
                    name,
                    particle,
                    value,
                    index,
                });
                self.live += 1;
                self.index_from(self.bins.len() - 1);
            }
        }
        Ok(())
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        if self.bins.len() > LINEAR_BINS_MAX {
            return self.by_name.get(name).copied();
        }
        self.bins.iter().position(|bin| bin.name == name)
    }

    fn live_position(&self, name: &[u8]) -> Option<usize> {
        self.position(name)
            .filter(|at| self.bins[*at].particle != particle::NULL)
    }

    fn clear(&mut self) {
        self.bins.clear();
        self.by_name.clear();
        self.live = 0;
    }

    /// Adds to a number. With nothing to add to, what is given is written, whatever it is.
    fn increment(&mut self, operation: &Op<'a>) -> Result<(), ResultCode> {
        check_bin_name(operation.name)?;
        if operation.particle == particle::NULL {
            return Err(ResultCode::Parameter);
        }
        let Some(at) = self.live_position(operation.name) else {
            return self.set(operation.name, operation.particle, operation.value);
        };
        let bin = &mut self.bins[at];
        let is_number = matches!(operation.particle, particle::INTEGER | particle::FLOAT);
        if !is_number || bin.particle != operation.particle {
            return Err(ResultCode::IncompatibleType);
        }
        let delta = number(operation.value)?;
        let old = number(bin.value.bytes())?;
        bin.value = Value::Number(match operation.particle {
            particle::INTEGER => i64::from_be_bytes(old)
                .wrapping_add(i64::from_be_bytes(delta))
                .to_be_bytes(),
            _ => (f64::from_be_bytes(old) + f64::from_be_bytes(delta)).to_be_bytes(),
        });
        Ok(())
    }

    fn concatenate(&mut self, operation: &Op<'a>, side: Side) -> Result<(), ResultCode> {
        check_bin_name(operation.name)?;
        if operation.particle == particle::NULL {
            return Err(ResultCode::Parameter);
        }
        let Some(at) = self.live_position(operation.name) else {
            return self.set(operation.name, operation.particle, operation.value);
        };
        let bin = &mut self.bins[at];
        let is_text = matches!(operation.particle, particle::STRING | particle::BLOB);
        if !is_text || bin.particle != operation.particle {
            return Err(ResultCode::IncompatibleType);
        }
        if bin.value.bytes().len() + operation.value.len() > self.bytes_max {
            return Err(ResultCode::RecordTooBig);
        }
        match (&mut bin.value, side) {
            (Value::Owned(old), Side::End) => old.extend_from_slice(operation.value),
            (old, Side::End) => bin.value = Value::Owned([old.bytes(), operation.value].concat()),
            (old, Side::Start) => bin.value = Value::Owned([operation.value, old.bytes()].concat()),
        }
        Ok(())
    }

    /// The result of an operation that looks into what a bin holds.
    fn read(
        &self,
        operation: &Op<'_>,
        context: &OperationContext<'_>,
    ) -> Result<Option<BinValue<'static>>, ResultCode> {
        let view = WorkingView {
            record: self,
            context,
        };
        bin_operation::read(operation, self.bin(operation.name), &view)
    }

    fn reply_bin(&self, name: &[u8], reply: &mut ReplyWriter<'_>, respond_all: bool) {
        match self.live_position(name) {
            Some(at) => reply.op(name, self.bins[at].particle, self.bins[at].value.bytes()),
            None if respond_all => reply.op(name, particle::NULL, &[]),
            None => {}
        }
    }

    fn reply_all(&self, reply: &mut ReplyWriter<'_>) {
        for bin in self.live_bins() {
            reply.op(bin.name, bin.particle, bin.value.bytes());
        }
    }
}

/// What expressions in operations see of a record besides its bins.
pub struct OperationContext<'a> {
    pub metadata: Metadata<'a>,
    /// The stored key: its type, then its bytes.
    pub key: Option<&'a [u8]>,
}

impl OperationContext<'_> {
    fn key(&self) -> Lookup<(u8, &[u8])> {
        let key = self.key.and_then(<[u8]>::split_first);
        key.map(|(kind, bytes)| (*kind, bytes)).into()
    }
}

/// A record while operations change it, as expressions see it.
struct WorkingView<'w, 'a> {
    record: &'w WorkingRecord<'a>,
    context: &'w OperationContext<'w>,
}

impl RecordView for WorkingView<'_, '_> {
    fn metadata(&self) -> Metadata<'_> {
        self.context.metadata
    }

    fn key(&self) -> Lookup<(u8, &[u8])> {
        self.context.key()
    }

    fn bin(&self, name: &[u8]) -> Lookup<(u8, &[u8])> {
        let bin = self.record.bin(name);
        bin.map(|bin| (bin.particle, bin.value)).into()
    }

    fn bin_index(&self, name: &[u8]) -> Option<&[u8]> {
        self.record.bin(name)?.index
    }
}

/// A list or map as it is stored, see [`canonical`].
fn stored_container(value: &[u8]) -> Result<Value<'_>, ResultCode> {
    if has_sentinel(value) {
        return Err(ResultCode::Parameter);
    }
    let canonical = canonical(value).map_err(|_| ResultCode::Parameter)?;
    Ok(if canonical == value {
        Value::Borrowed(value)
    } else {
        Value::Owned(canonical)
    })
}

fn reply_result(
    operation: &Op<'_>,
    result: Option<BinValue<'_>>,
    respond_all: bool,
    reply: &mut ReplyWriter<'_>,
) -> Result<(), ResultCode> {
    match result {
        Some((particle, value)) => reply.op(operation.name, particle, &value),
        None if respond_all => reply.op(operation.name, particle::NULL, &[]),
        None => {}
    }
    check_results(reply)
}

enum Side {
    Start,
    End,
}

fn number(value: &[u8]) -> Result<[u8; 8], ResultCode> {
    value.try_into().map_err(|_| ResultCode::Parameter)
}

fn check_bin_name(name: &[u8]) -> Result<(), ResultCode> {
    match name.len() {
        0 => Err(ResultCode::Parameter),
        length if length > BIN_NAME_BYTES_MAX => Err(ResultCode::BinName),
        _ => Ok(()),
    }
}

/// What a write request asks for, checked before any record is touched (PROTOCOL sections 5 and 8).
#[derive(Debug, Clone, Copy)]
pub struct WriteRules {
    pub create_only: bool,
    pub update_only: bool,
    /// The new version holds nothing of the old one's bins.
    pub replaces: bool,
    pub replace_only: bool,
    /// A touch is among the operations: the record must exist.
    pub must_exist: bool,
    pub respond_all: bool,
}

impl WriteRules {
    pub fn of(message: &Message<'_>) -> Result<WriteRules, ResultCode> {
        let header = &message.header;
        if message.ops.is_empty() {
            return Err(ResultCode::Parameter);
        }
        let replace_only = header.info3 & info3::REPLACE_ONLY != 0;
        let replaces = replace_only || header.info3 & info3::CREATE_OR_REPLACE != 0;
        let respond_all = header.info2 & info2::RESPOND_ALL_OPS != 0;
        let mut rules = WriteRules {
            create_only: header.info2 & info2::CREATE_ONLY != 0,
            update_only: header.info3 & info3::UPDATE_ONLY != 0,
            replaces,
            replace_only,
            must_exist: false,
            respond_all,
        };
        let (mut read_alls, mut other_results) = (0, false);
        for operation in message.ops {
            let changes_old = match operation.code {
                op::WRITE => operation.particle == particle::NULL,
                op::READ => {
                    if header.info1 & info1::READ == 0 {
                        return Err(ResultCode::Parameter);
                    }
                    if header.info1 & info1::GET_NO_BINS != 0 {
                        // It asks for generation and void time, which every reply has.
                    } else if operation.name.is_empty() {
                        read_alls += 1
                    } else {
                        other_results = true
                    }
                    false
                }
                code if bin_operation::is_read(code) => {
                    if header.info1 & info1::READ == 0 {
                        return Err(ResultCode::Parameter);
                    }
                    other_results = true;
                    false
                }
                code if bin_operation::is_modify(code) => {
                    other_results = true;
                    true
                }
                op::TOUCH => {
                    rules.must_exist = true;
                    true
                }
                op::INCR | op::APPEND | op::PREPEND | op::DELETE_ALL => true,
                _ => return Err(unsupported_operation(operation.code)),
            };
            if replaces && changes_old {
                return Err(ResultCode::Parameter);
            }
        }
        if read_alls > 1 || (read_alls == 1 && (other_results || respond_all)) {
            return Err(ResultCode::Parameter);
        }
        let gets_all = header.info1 & (info1::GET_ALL | info1::GET_NO_BINS) == info1::GET_ALL;
        if gets_all && read_alls == 0 {
            return Err(ResultCode::Parameter);
        }
        Ok(rules)
    }
}

/// The code for an operation that this engine does not carry out: known ones are named as missing, others are not part
/// of the protocol.
pub fn unsupported_operation(code: u8) -> ResultCode {
    match code {
        op::STRING_READ | op::STRING_MODIFY | op::TO_STRING => ResultCode::UnsupportedFeature,
        _ => ResultCode::Parameter,
    }
}

/// Applies the operations in order and appends the results of those that give one. On an error the record is to be
/// thrown away and the reply abandoned.
pub fn apply<'a>(
    record: &mut WorkingRecord<'a>,
    message: &Message<'a>,
    rules: &WriteRules,
    context: &OperationContext<'_>,
    reply: &mut ReplyWriter<'_>,
) -> Result<(), ResultCode> {
    let header_only = message.header.info1 & info1::GET_NO_BINS != 0;
    for operation in message.ops {
        match operation.code {
            op::READ if header_only => continue,
            op::READ if operation.name.is_empty() => {
                record.reply_all(reply);
                continue;
            }
            op::READ => {
                record.reply_bin(operation.name, reply, rules.respond_all);
                check_results(reply)?;
                continue;
            }
            code if bin_operation::is_read(code) => {
                let result = record.read(&operation, context)?;
                reply_result(&operation, result, rules.respond_all, reply)?;
                continue;
            }
            code if bin_operation::is_modify(code) => {
                let result = record.modify(&operation, context)?;
                reply_result(&operation, result, rules.respond_all, reply)?;
                continue;
            }
            op::WRITE => record.set(operation.name, operation.particle, operation.value)?,
            op::INCR => record.increment(&operation)?,
            op::APPEND => record.concatenate(&operation, Side::End)?,
            op::PREPEND => record.concatenate(&operation, Side::Start)?,
            op::TOUCH => {}
            op::DELETE_ALL => record.clear(),
            code => return Err(unsupported_operation(code)),
        }
        if rules.respond_all {
            reply.op(operation.name, particle::NULL, &[]);
        }
    }
    Ok(())
}

/// Refuses a request that asks for more than fits a reply.
fn check_results(reply: &ReplyWriter<'_>) -> Result<(), ResultCode> {
    if reply.bytes() > RESULT_BYTES_MAX {
        Err(ResultCode::Parameter)
    } else {
        Ok(())
    }
}

/// Checks the operations of a read before the record is looked for.
pub fn check_read(message: &Message<'_>) -> Result<(), ResultCode> {
    let mut read_alls = 0;
    for operation in message.ops {
        if operation.code != op::READ && !bin_operation::is_read(operation.code) {
            return Err(unsupported_operation(operation.code));
        }
        read_alls += usize::from(operation.name.is_empty());
    }
    // All bins are sent once, however often they are asked for; but not beside some of them.
    if read_alls > 0 && read_alls < message.ops.len() {
        Err(ResultCode::Parameter)
    } else {
        Ok(())
    }
}

/// Appends the bins that a checked read asks for: all of them, those of its READ operations, or none.
pub fn reply_bins(
    image: &ImageView<'_>,
    message: &Message<'_>,
    metadata: Metadata<'_>,
    reply: &mut ReplyWriter<'_>,
) -> Result<(), ResultCode> {
    if message.header.info1 & info1::GET_NO_BINS != 0 {
        return Ok(());
    }
    if message
        .ops
        .iter()
        .all(|operation| operation.code == op::READ && operation.name.is_empty())
    {
        for bin in image.bins() {
            reply.op(bin.name, bin.particle, bin.value);
        }
        return Ok(());
    }
    let respond_all = message.header.info2 & info2::RESPOND_ALL_OPS != 0;
    if message.ops.len() > LINEAR_BINS_MAX && image.n_bins() > LINEAR_BINS_MAX {
        let record = WorkingRecord::of(image, 0);
        let context = &OperationContext {
            metadata,
            key: image.key(),
        };
        for operation in message.ops {
            if bin_operation::is_read(operation.code) {
                reply_result(
                    &operation,
                    record.read(&operation, context)?,
                    respond_all,
                    reply,
                )?;
            } else {
                record.reply_bin(operation.name, reply, respond_all);
                check_results(reply)?;
            }
        }
        return Ok(());
    }
    for operation in message.ops {
        let bin = image.bins().find(|bin| bin.name == operation.name);
        if bin_operation::is_read(operation.code) {
            let view = StoredRecord {
                view: image,
                metadata,
            };
            let result = bin_operation::read(&operation, bin, &view)?;
            reply_result(&operation, result, respond_all, reply)?;
            continue;
        }
        match bin {
            Some(bin) => reply.op(bin.name, bin.particle, bin.value),
            None if respond_all => reply.op(operation.name, particle::NULL, &[]),
            None => {}
        }
        check_results(reply)?;
    }
    Ok(())
}
