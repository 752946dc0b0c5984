// The Lua table `bytes`. Offsets count from 1. `bytes(n)` makes room for n bytes and has size 0; writing extends the size.
// Reading outside gives nil; writing anywhere up to BYTES_MAX extends with zeros.

import type { LuaFunction, LuaState, Table } from './fengari.js'
import { pushObject } from './host-object.js'
import {
  argument, badArgument, checkCount, checkInteger, FLOAT, getInteger, INTEGER, luaString, NIL, pushBoolean, pushInteger, pushNil, pushTyped, rawSet,
  STRING, TABLE, tableValue, toFloat, typeName
} from './lua.js'
import { chargeBytes, spend } from './limits.js'
import { writeInt64 } from './lua-integer.js'
import { expect, functionTable } from './collections-api.js'
import { checkBytes } from './string-library.js'
import { BYTES_MAX, LuaBytes, setMethods } from './values.js'
import { ParticleType } from '../src/engine/constants.js'

function bytes (L: LuaState, index = 1): LuaBytes {
  return expect(L, index, LuaBytes, 'bytes')
}

function newBytes (L: LuaState, index: number): number {
  const source = argument(L, index)
  if (source.type === TABLE) {
    const table: Table = source.value
    const content: number[] = []
    for (let i = 1; ; i++) {
      const value = getInteger(table, i)
      if (value === undefined) break
      spend(1)
      if (i > BYTES_MAX) badArgument(L, index, `more than ${BYTES_MAX} elements`)
      if (value.type !== INTEGER) badArgument(L, index, `element ${i}: integer expected, got ${typeName(value)}`)
      content.push(Number(BigInt.asUintN(8, BigInt(value.value))))
    }
    const made = new Uint8Array(content)
    chargeBytes(made.length)
    return pushObject(L, new LuaBytes(made, made.length))
  }
  const capacity = source.type === NIL ? 0 : checkCount(L, index)
  if (capacity < 0 || capacity > BYTES_MAX) badArgument(L, index, `size out of range [0,${BYTES_MAX}]`)
  chargeBytes(capacity)
  return pushObject(L, new LuaBytes(new Uint8Array(capacity), 0))
}

function offset (L: LuaState, index: number): number {
  const at = checkCount(L, index)
  if (at < 1 || at > BYTES_MAX) badArgument(L, index, `offset out of range [1,${BYTES_MAX}]`)
  return at - 1
}

type Encode = (view: DataView, at: number, L: LuaState, index: number) => void
type Decode = (view: DataView, at: number) => number | bigint

interface Fixed {
  size: number
  encode: Encode
  decode: Decode
}

function viewOf (target: LuaBytes): DataView {
  return new DataView(target.buffer.buffer, target.buffer.byteOffset, target.buffer.byteLength)
}

function narrow (L: LuaState, index: number): number {
  return Number(BigInt.asIntN(32, BigInt(checkInteger(L, index))))
}

function int16 (little: boolean): Fixed {
  return { size: 2, encode: (view, at, L, index) => { view.setInt16(at, narrow(L, index), little) }, decode: (view, at) => view.getInt16(at, little) }
}

function int32 (little: boolean): Fixed {
  return { size: 4, encode: (view, at, L, index) => { view.setInt32(at, narrow(L, index), little) }, decode: (view, at) => view.getInt32(at, little) }
}

function int64 (little: boolean): Fixed {
  return {
    size: 8,
    encode: (view, at, L, index) => {
      const value = checkInteger(L, index)
      if (little) view.setBigInt64(at, BigInt(value), true)
      else writeInt64(view, at, value)
    },
    decode: (view, at) => {
      const value = view.getBigInt64(at, little)
      return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
    }
  }
}

const FIXED: Record<string, Fixed> = {
  byte: { size: 1, encode: (view, at, L, index) => { view.setUint8(at, narrow(L, index) & 255) }, decode: (view, at) => view.getUint8(at) },
  int16: int16(false),
  int16_be: int16(false),
  int16_le: int16(true),
  int32: int32(false),
  int32_be: int32(false),
  int32_le: int32(true),
  int64: int64(false),
  int64_be: int64(false),
  int64_le: int64(true)
}

/** The content may be a part of the target itself. */
function write (L: LuaState, target: LuaBytes, at: number, content: Uint8Array): void {
  spend(content.length >> 8)
  target.ensure(L, at + content.length)
  target.buffer.set(content, at)
}

/** `length` bytes of an argument (string or bytes), all of them when the length is not given. */
function portion (L: LuaState, content: Uint8Array, index: number): Uint8Array {
  if (argument(L, index).type === NIL) return content
  const length = checkCount(L, index)
  if (length < 0) badArgument(L, index, 'negative length')
  return content.subarray(0, length)
}

// Variable-length unsigned 32-bit integers: groups of seven bits, the lowest first, the high bit set on all but the last.
function variableBytes (L: LuaState, index: number): Uint8Array {
  let value = Number(BigInt.asUintN(32, BigInt(checkInteger(L, index))))
  const out: number[] = []
  while (value >= 0x80) {
    out.push((value & 0x7f) | 0x80)
    value >>>= 7
  }
  out.push(value)
  return Uint8Array.from(out)
}

const SETTABLE_TYPES: readonly number[] = [
  ParticleType.BLOB, ParticleType.JAVA_BLOB, ParticleType.CSHARP_BLOB, ParticleType.PYTHON_BLOB, ParticleType.RUBY_BLOB, ParticleType.PHP_BLOB,
  ParticleType.ERLANG_BLOB, ParticleType.HLL
]

const functions: Record<string, LuaFunction> = {
  create: L => newBytes(L, 1),
  size: L => pushInteger(L, bytes(L).size),
  set_size: L => {
    const target = bytes(L)
    const size = checkCount(L, 2)
    if (size < 0 || size > BYTES_MAX) badArgument(L, 2, `size out of range [0,${BYTES_MAX}]`)
    if (size > target.size) target.ensure(L, size)
    else {
      // What is cut off must not come back when the size grows again.
      target.buffer.fill(0, size, target.size)
      target.size = size
    }
    return pushBoolean(L, true)
  },
  get_type: L => pushInteger(L, bytes(L).particleType),
  set_type: L => {
    const type = checkCount(L, 2)
    if (!SETTABLE_TYPES.includes(type)) badArgument(L, 2, `no blob type: ${type}`)
    bytes(L).particleType = type
    return 0
  },
  get_string: L => {
    const source = bytes(L)
    const at = offset(L, 2)
    const length = checkCount(L, 3)
    if (length < 0 || at >= source.size) return pushNil(L)
    return pushTyped(L, STRING, luaString(source.content.slice(at, at + length)))
  },
  get_bytes: L => {
    const source = bytes(L)
    const at = offset(L, 2)
    const length = checkCount(L, 3)
    if (length < 0 || at >= source.size) return pushNil(L)
    const part = source.content.slice(at, at + length)
    chargeBytes(part.length)
    return pushObject(L, new LuaBytes(part, part.length))
  },
  set_string: L => {
    write(L, bytes(L), offset(L, 2), portion(L, checkBytes(L, 3), 4))
    return pushBoolean(L, true)
  },
  set_bytes: L => {
    write(L, bytes(L), offset(L, 2), portion(L, bytes(L, 3).content, 4))
    return pushBoolean(L, true)
  },
  append_string: L => {
    const target = bytes(L)
    write(L, target, target.size, portion(L, checkBytes(L, 2), 3))
    return pushBoolean(L, true)
  },
  append_bytes: L => {
    const target = bytes(L)
    write(L, target, target.size, portion(L, bytes(L, 2).content, 3))
    return pushBoolean(L, true)
  },
  set_var_int: L => {
    const target = bytes(L)
    const encoded = variableBytes(L, 3)
    write(L, target, offset(L, 2), encoded)
    return pushInteger(L, encoded.length)
  },
  append_var_int: L => {
    const target = bytes(L)
    const encoded = variableBytes(L, 2)
    write(L, target, target.size, encoded)
    return pushInteger(L, encoded.length)
  },
  /** The value and how many bytes it took. */
  get_var_int: L => {
    const source = bytes(L)
    const start = offset(L, 2)
    let value = 0
    for (let i = 0; i < 5 && start + i < source.size; i++) {
      const byte = source.buffer[start + i]!
      value += (byte & 0x7f) * 2 ** (7 * i)
      if ((byte & 0x80) === 0) {
        pushInteger(L, value)
        pushInteger(L, i + 1)
        return 2
      }
    }
    pushNil(L)
    pushInteger(L, 0)
    return 2
  },
  tostring: L => pushTyped(L, STRING, luaString(bytes(L).content.slice()))
}

for (const [name, { size, encode, decode }] of Object.entries(FIXED)) {
  functions[`get_${name}`] = L => {
    const source = bytes(L)
    const at = offset(L, 2)
    return at + size > source.size ? pushNil(L) : pushInteger(L, decode(viewOf(source), at))
  }
  functions[`set_${name}`] = L => {
    const target = bytes(L)
    const at = offset(L, 2)
    checkInteger(L, 3)
    target.ensure(L, at + size)
    encode(viewOf(target), at, L, 3)
    return pushBoolean(L, true)
  }
  functions[`append_${name}`] = L => {
    const target = bytes(L)
    const at = target.size
    checkInteger(L, 2)
    target.ensure(L, at + size)
    encode(viewOf(target), at, L, 2)
    return pushBoolean(L, true)
  }
}

for (const name of ['float', 'double'] as const) {
  const size = name === 'float' ? 4 : 8
  const put = (L: LuaState, target: LuaBytes, at: number, index: number): number => {
    const value = toFloat(argument(L, index))
    if (value === false) badArgument(L, index, 'number expected')
    target.ensure(L, at + size)
    if (size === 4) viewOf(target).setFloat32(at, value)
    else viewOf(target).setFloat64(at, value)
    return pushBoolean(L, true)
  }
  functions[`set_${name}`] = L => put(L, bytes(L), offset(L, 2), 3)
  functions[`append_${name}`] = L => put(L, bytes(L), bytes(L).size, 2)
  functions[`get_${name}`] = L => {
    const source = bytes(L)
    const at = offset(L, 2)
    if (at + size > source.size) return pushNil(L)
    return pushTyped(L, FLOAT, size === 4 ? viewOf(source).getFloat32(at) : viewOf(source).getFloat64(at))
  }
}

export function installBytes (environment: Table): void {
  const table = functionTable(functions, L => newBytes(L, 2))
  rawSet(environment, 'bytes', tableValue(table))
  setMethods('bytes', table)
}
