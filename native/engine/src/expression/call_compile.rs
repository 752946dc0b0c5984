//! Compilation of calls.

use super::call::{Call, Module, Operation, Piece};
use super::compile::{Compiler, Typed, type_of};
use super::damaged;
use super::node::Node;
use super::path::PATH_CODE;
use super::value::Type;
use crate::record::bits::BitCall;
use crate::record::cdt::{self, CallBytes, Shape};
use crate::record::hll::HllCall;
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{Reader, Writer, canonical};

const MODIFY: i64 = 0x40;
const WITH_CONTEXT: i64 = 0xff;
const EMPTY_LIST: &[u8] = &[0x90];
const EMPTY_MAP: &[u8] = &[0x80];
const NIL: u8 = 0xc0;

impl<'a> Compiler<'a> {
    /// `[127, type, module, [code, argument...], value]`, behind the 127.
    pub(super) fn call(
        &mut self,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Typed, ResultCode> {
        let returns = type_of(reader)?;
        let code = reader.read_int().map_err(damaged)?;
        let is_modify = code & MODIFY != 0;
        let module = match code & !MODIFY {
            0 => Module::Cdt,
            1 => Module::Bits,
            2 => Module::Hll,
            // Operations on text, and text of values.
            3 | 4 => return Err(ResultCode::UnsupportedFeature),
            _ => return Err(ResultCode::Parameter),
        };
        let items = reader.read_array().map_err(damaged)?;
        let first = reader.read_int().map_err(damaged)?;
        let operation = if module == Module::Cdt && first == PATH_CODE {
            let path = self.path(items, reader, depth)?;
            if path.is_change() != is_modify {
                return Err(ResultCode::Parameter);
            }
            Operation::Path(path)
        } else {
            self.pieces(module, is_modify, items, first, reader, depth)?
        };
        let value = self.expression(reader, depth)?.expect(|kind| match kind {
            // There is nothing yet, and the operation makes it.
            Type::Nil => is_modify,
            Type::List | Type::Map => module == Module::Cdt,
            Type::Blob => module == Module::Bits,
            Type::Hll => module == Module::Hll,
            _ => false,
        })?;
        Ok(Typed {
            kind: Some(returns),
            node: Node::Call(Box::new(Call {
                module,
                is_modify,
                returns,
                operation,
                value,
            })),
        })
    }

    /// `items` and `first` are what the operation's array begins with.
    fn pieces(
        &mut self,
        module: Module,
        is_modify: bool,
        items: u32,
        first: i64,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Operation, ResultCode> {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).array(items);
        Writer::new(&mut bytes).int(first);
        let mut args = items.checked_sub(1).ok_or(ResultCode::Parameter)?;
        if first == WITH_CONTEXT {
            if items != 3 {
                return Err(ResultCode::Parameter);
            }
            bytes.extend_from_slice(reader.skip().map_err(damaged)?);
            let items = reader.read_array().map_err(damaged)?;
            Writer::new(&mut bytes).array(items);
            Writer::new(&mut bytes).int(reader.read_int().map_err(damaged)?);
            args = items.checked_sub(1).ok_or(ResultCode::Parameter)?;
        }
        let mut pieces = Vec::new();
        for _ in 0..args {
            if let Some(argument) = self.argument(reader, &mut bytes, depth)? {
                pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                pieces.push(Piece::Argument(argument));
            }
        }
        if pieces.is_empty() {
            let call = CallBytes::of(&bytes)?;
            check(module, is_modify, &call)?;
            return Ok(Operation::Fixed(call));
        }
        pieces.push(Piece::Bytes(bytes));
        let mut with_nils = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Bytes(bytes) => with_nils.extend_from_slice(bytes),
                Piece::Argument(_) => with_nils.push(NIL),
            }
        }
        check_code(module, is_modify, &CallBytes::of(&with_nils)?)?;
        Ok(Operation::Made(pieces.into()))
    }

    /// Appends an argument that is known to `bytes`, or returns the expression that it is.
    fn argument(
        &mut self,
        reader: &mut Reader<'a>,
        bytes: &mut Vec<u8>,
        depth: usize,
    ) -> Result<Option<Node>, ResultCode> {
        let mut ahead = *reader;
        if ahead.read_array().is_err() {
            // Here, and only here, sentinels may stand.
            self.enter(depth)?;
            let argument = canonical(reader.skip().map_err(damaged)?).map_err(damaged)?;
            bytes.extend_from_slice(&argument);
            return Ok(None);
        }
        match self.expression(reader, depth)?.node {
            Node::Literal(value) => {
                value.write_msgpack(bytes).map_err(damaged)?;
                Ok(None)
            }
            argument => Ok(Some(argument)),
        }
    }
}

/// PARAMETER if an operation is wrong whatever it is called on.
fn check(module: Module, is_modify: bool, bytes: &CallBytes) -> Result<(), ResultCode> {
    check_code(module, is_modify, bytes)?;
    match module {
        Module::Bits => BitCall::parse(bytes).map(|_| ()),
        Module::Hll => HllCall::parse(bytes).map(|_| ()),
        Module::Cdt if is_modify => Ok(()),
        Module::Cdt => {
            let mut call = cdt::Call::parse(bytes)?;
            call.context.clear();
            let empty = match call.shape() {
                Shape::List => EMPTY_LIST,
                Shape::Map => EMPTY_MAP,
            };
            // An empty container has nothing that an argument could be wrong about.
            match cdt::read(empty, &mut call) {
                Err(ResultCode::Parameter) => Err(ResultCode::Parameter),
                _ => Ok(()),
            }
        }
    }
}

/// PARAMETER if a module has no such operation, or it is not what the call says: reading or modifying.
fn check_code(module: Module, is_modify: bool, bytes: &CallBytes) -> Result<(), ResultCode> {
    let call = cdt::Call::parse(bytes)?;
    let found = match (module, call.code) {
        (Module::Cdt, _) => call.is_modify()?,
        _ if !call.context.is_empty() => return Err(ResultCode::Parameter),
        (Module::Bits, 0..=12) | (Module::Hll, 0..=4) => true,
        (Module::Bits, 50..=54) | (Module::Hll, 50..=56) => false,
        _ => return Err(ResultCode::Parameter),
    };
    if found == is_modify {
        Ok(())
    } else {
        Err(ResultCode::Parameter)
    }
}
