// string.format, string.pack, string.unpack and string.packsize for 64-bit integers; the published ones compute in 32 bits.

import type { LuaFunction, LuaState, TValue } from './fengari.js'
import {
  argument, argumentCount, badArgument, checkInteger, FLOAT, hashString, INTEGER, lapi, lauxlib, luaString, NIL, pushInteger, pushTyped, raise, STRING,
  STRING_BYTES_MAX, textString, toFloat, typeName, BOOLEAN
} from './lua.js'
import { spend } from './limits.js'
import { formatFloat, formatInteger } from './lua-format.js'
import type { FormatSpec } from './lua-format.js'
import { latin1 } from './lua-string.js'
import * as integer from './lua-integer.js'
import type { LuaInteger } from './lua-integer.js'

export function checkBytes (L: LuaState, index: number): Uint8Array {
  const value = argument(L, index)
  return value.type === STRING ? value.value.realstring : lauxlib['luaL_checklstring'](L, index)
}

function checkFloat (L: LuaState, index: number): number {
  const value = toFloat(argument(L, index))
  if (value === false) badArgument(L, index, `number expected, got ${nameOf(L, index)}`)
  return value
}

export function nameOf (L: LuaState, index: number): string {
  return index > argumentCount(L) ? 'no value' : typeName(argument(L, index))
}

/** `tostring` of an argument, with its metamethod. */
export function textBytes (L: LuaState, index: number): Uint8Array {
  const value = argument(L, index)
  if (value.type === STRING) return value.value.realstring
  const bytes: Uint8Array = lauxlib['luaL_tolstring'](L, index)
  lapi['lua_pop'](L, 1)
  return bytes
}

const FORMAT_ITEM = /^([-+ #0]*)([0-9]*)(?:\.([0-9]*))?([a-zA-Z])/

function quoted (bytes: Uint8Array): Buffer {
  spend(bytes.length >> 4)
  // Four bytes at most for one: a backslash and three digits.
  const out = Buffer.allocUnsafe(bytes.length * 4 + 2)
  let at = out.writeUInt8(0x22, 0)
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!
    const isControl = byte !== 10 && (byte < 32 || byte === 127)
    if (isControl || byte === 0x22 || byte === 0x5c || byte === 10) out[at++] = 0x5c
    if (isControl) {
      const next = bytes[i + 1] ?? 0
      at += out.write(next >= 48 && next <= 57 ? String(byte).padStart(3, '0') : String(byte), at, 'latin1')
    } else out[at++] = byte
  }
  out[at++] = 0x22
  return out.subarray(0, at)
}

function literal (L: LuaState, index: number): Uint8Array {
  const value: TValue = argument(L, index)
  switch (value.type) {
    case STRING: return quoted(value.value.realstring)
    case INTEGER: return Buffer.from(value.value === integer.INTEGER_MIN ? '0x8000000000000000' : String(value.value))
    case FLOAT: {
      const number: number = value.value
      const text = Number.isFinite(number)
        ? formatFloat(number, { ...PLAIN, conversion: 'a' })
        : Number.isNaN(number) ? '(0/0)' : number > 0 ? '1e9999' : '-1e9999'
      return Buffer.from(text)
    }
    case NIL: case BOOLEAN: return textBytes(L, index)
    default: return badArgument(L, index, 'value has no literal form')
  }
}

const PLAIN: FormatSpec = { left: false, plus: false, space: false, alternate: false, zero: false, width: 0, precision: null, conversion: 's' }

interface FormatItem {
  /** Text before the item. */
  readonly literal: string
  /** Its text, without the percent sign. */
  readonly item: string
  /** Null after the last item. */
  readonly spec: FormatSpec | null
  /** Why the item is none: raised once the items before it are formatted. */
  readonly problem: string | null
  readonly isBare: boolean
}

/** Formats that were read, by their text; given up all at once when there are too many. */
const formats = new Map<string, readonly FormatItem[]>()
const FORMATS_MAX = 256
const FORMAT_CHARS_MAX = 256

function itemsOf (source: string): readonly FormatItem[] {
  const known = formats.get(source)
  if (known !== undefined) return known
  const items: FormatItem[] = []
  let literal = ''
  let at = 0
  for (;;) {
    const percent = source.indexOf('%', at)
    literal += source.slice(at, percent < 0 ? undefined : percent)
    if (percent < 0) break
    if (source[percent + 1] === '%') {
      literal += '%'
      at = percent + 2
      continue
    }
    const match = FORMAT_ITEM.exec(source.slice(percent + 1, percent + 33))
    let problem: string | null = null
    if (match === null) problem = `invalid conversion '%${source.slice(percent + 1, percent + 3)}' to 'format'`
    const [item, flags = '', width = '', precision, conversion = ''] = match ?? ['']
    // Two digits, as in C Lua: what bounds a padded item.
    if (problem === null && (width.length > 2 || (precision !== undefined && precision.length > 2) || flags.length > 5)) {
      problem = `invalid conversion '%${item}' to 'format'`
    }
    const spec: FormatSpec = {
      left: flags.includes('-'),
      plus: flags.includes('+'),
      space: flags.includes(' '),
      alternate: flags.includes('#'),
      zero: flags.includes('0'),
      width: Number(width),
      precision: precision === undefined ? null : Number(precision),
      conversion
    }
    items.push({ literal, item, spec, problem, isBare: item === conversion })
    if (problem !== null) break
    literal = ''
    at = percent + 1 + item.length
  }
  items.push({ literal, item: '', spec: null, problem: null, isBare: true })
  if (source.length <= FORMAT_CHARS_MAX) {
    if (formats.size >= FORMATS_MAX) formats.clear()
    formats.set(source, items)
  }
  return items
}

/** Formats arguments from `first` on by the format at `first`; used by string.format and the log functions. A character is a byte. */
export function format (L: LuaState, first: number): string {
  const source = latin1(checkBytes(L, first))
  const count = argumentCount(L)
  let text = ''
  const emit = (part: string): void => {
    text += part
    if (text.length > STRING_BYTES_MAX) raise(L, `string longer than ${STRING_BYTES_MAX} bytes`)
  }
  let index = first
  for (const { literal: before, item, spec, problem, isBare } of itemsOf(source)) {
    emit(before)
    if (problem !== null) raise(L, problem)
    if (spec === null) break
    index++
    if (index > count) badArgument(L, index, 'no value')
    switch (spec.conversion) {
      case 'd': case 'i': case 'u': case 'o': case 'x': case 'X': {
        const value = checkInteger(L, index)
        emit(isBare && spec.conversion === 'd' ? String(value) : formatInteger(value, spec))
        break
      }
      case 'e': case 'E': case 'f': case 'F': case 'g': case 'G': case 'a': case 'A':
        emit(formatFloat(checkFloat(L, index), spec))
        break
      case 'c':
        emit(pad(String.fromCharCode(Number(BigInt.asUintN(8, BigInt(checkInteger(L, index))))), spec))
        break
      case 's': {
        const value = argument(L, index)
        const given = value.type === STRING ? hashString(value.value) : latin1(textBytes(L, index))
        emit(isBare ? given : pad(spec.precision === null ? given : given.slice(0, spec.precision), spec))
        break
      }
      case 'q':
        if (!isBare) raise(L, "specifier '%q' cannot have modifiers")
        emit(latin1(literal(L, index)))
        break
      default: raise(L, `invalid conversion '%${item}' to 'format'`)
    }
  }
  return text
}

function pad (text: string, spec: FormatSpec): string {
  return spec.left ? text.padEnd(spec.width) : text.padStart(spec.width)
}

const formatFunction: LuaFunction = L => pushTyped(L, STRING, textString(format(L, 1)))

// ---- pack and unpack ----

type PackKind = 'int' | 'uint' | 'float' | 'double' | 'char' | 'string' | 'zero' | 'pad' | 'align' | 'none'

interface PackItem {
  kind: PackKind
  size: number
  /** Bytes of padding before it. */
  padding: number
  little: boolean
}

const FIXED_SIZES: Record<string, [PackKind, number]> = {
  b: ['int', 1], B: ['uint', 1], h: ['int', 2], H: ['uint', 2], l: ['int', 8], L: ['uint', 8], j: ['int', 8], J: ['uint', 8],
  T: ['uint', 8], f: ['float', 4], d: ['double', 8], n: ['double', 8], x: ['pad', 1]
}

class PackFormat {
  readonly #L: LuaState
  readonly #text: string
  #at = 0
  #little = true
  #alignMax = 1

  constructor (L: LuaState, bytes: Uint8Array) {
    this.#L = L
    this.#text = Buffer.from(bytes).toString('latin1')
  }

  get done (): boolean {
    return this.#at >= this.#text.length
  }

  #number (otherwise: number): number {
    const digits = /^[0-9]{1,9}/.exec(this.#text.slice(this.#at, this.#at + 9))
    if (digits === null) return otherwise
    this.#at += digits[0].length
    return Number(digits[0])
  }

  #size (otherwise: number): number {
    const size = this.#number(otherwise)
    if (size < 1 || size > 16) raise(this.#L, `integral size (${size}) out of limits [1,16]`)
    return size
  }

  #option (): { kind: PackKind, size: number } {
    spend(1)
    const option = this.#text[this.#at++]!
    const fixed = FIXED_SIZES[option]
    if (fixed !== undefined) return { kind: fixed[0], size: fixed[1] }
    switch (option) {
      case 'i': return { kind: 'int', size: this.#size(4) }
      case 'I': return { kind: 'uint', size: this.#size(4) }
      case 's': return { kind: 'string', size: this.#size(8) }
      case 'c': {
        const size = this.#number(-1)
        if (size < 0) raise(this.#L, "missing size for format option 'c'")
        return { kind: 'char', size }
      }
      case 'z': return { kind: 'zero', size: 0 }
      case 'X': return { kind: 'align', size: 0 }
      case ' ': break
      case '<': case '=': this.#little = true; break
      case '>': this.#little = false; break
      case '!': this.#alignMax = this.#size(8); break
      default: raise(this.#L, `invalid format option '${option}'`)
    }
    return { kind: 'none', size: 0 }
  }

  next (total: number): PackItem {
    const { kind, size } = this.#option()
    let align = size
    if (kind === 'align') {
      const following = this.done ? { kind: 'none', size: 0 } : this.#option()
      if (following.size === 0 || following.kind === 'char') badArgument(this.#L, 1, "invalid next option for option 'X'")
      align = following.size
    }
    let padding = 0
    if (align > 1 && kind !== 'char' && kind !== 'pad' && kind !== 'none') {
      align = Math.min(align, this.#alignMax)
      if ((align & (align - 1)) !== 0) badArgument(this.#L, 1, 'format asks for alignment not power of 2')
      padding = (align - (total & (align - 1))) & (align - 1)
    }
    return { kind, size, padding, little: this.#little }
  }
}

function integerBytes (value: LuaInteger, size: number, little: boolean): Uint8Array {
  const out = new Uint8Array(size)
  let rest = BigInt(value)
  for (let i = 0; i < size; i++) {
    out[little ? i : size - 1 - i] = Number(rest & 255n)
    rest >>= 8n
  }
  return out
}

function readInteger (L: LuaState, bytes: Uint8Array, at: number, size: number, little: boolean, signed: boolean): LuaInteger {
  let value = 0n
  for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[at + (little ? i : size - 1 - i)]!)
  if (size <= 8) return integer.wrap(signed ? BigInt.asIntN(size * 8, value) : value)
  const exact = signed ? BigInt.asIntN(size * 8, value) : value
  if (exact > 2n ** 64n - 1n || exact < integer.INTEGER_MIN) raise(L, `${size}-byte integer does not fit into Lua Integer`)
  return integer.wrap(exact)
}

function floatBytes (value: number, size: number, little: boolean): Uint8Array {
  const view = new DataView(new ArrayBuffer(size))
  if (size === 4) view.setFloat32(0, value, little)
  else view.setFloat64(0, value, little)
  return new Uint8Array(view.buffer)
}

const pack: LuaFunction = L => {
  const items = new PackFormat(L, checkBytes(L, 1))
  const parts: Uint8Array[] = []
  let total = 0
  let index = 1
  const emit = (part: Uint8Array): void => {
    total += part.length
    if (total > STRING_BYTES_MAX) raise(L, `string longer than ${STRING_BYTES_MAX} bytes`)
    parts.push(part)
  }
  while (!items.done) {
    const { kind, size, padding, little } = items.next(total)
    if (padding > 0) emit(new Uint8Array(padding))
    switch (kind) {
      case 'int': case 'uint': {
        const value = checkInteger(L, ++index)
        if (size < 8) {
          const bits = BigInt(size * 8)
          const exact = BigInt(value)
          if (kind === 'int' && BigInt.asIntN(Number(bits), exact) !== exact) badArgument(L, index, 'integer overflow')
          if (kind === 'uint' && BigInt.asUintN(Number(bits), exact) !== exact) badArgument(L, index, 'unsigned overflow')
        }
        emit(integerBytes(kind === 'uint' ? BigInt.asUintN(64, BigInt(value)) : value, size, little))
        break
      }
      case 'float': case 'double':
        emit(floatBytes(checkFloat(L, ++index), size, little))
        break
      case 'char': {
        const content = checkBytes(L, ++index)
        if (content.length > size) badArgument(L, index, 'string longer than given size')
        if (size > STRING_BYTES_MAX) badArgument(L, 1, 'size too large')
        emit(content)
        emit(new Uint8Array(size - content.length))
        break
      }
      case 'string': {
        const content = checkBytes(L, ++index)
        if (size < 8 && content.length >= 2 ** (size * 8)) badArgument(L, index, 'string length does not fit in given size')
        emit(integerBytes(content.length, size, little))
        emit(content)
        break
      }
      case 'zero': {
        const content = checkBytes(L, ++index)
        if (content.includes(0)) badArgument(L, index, 'string contains zeros')
        emit(content)
        emit(new Uint8Array(1))
        break
      }
      case 'pad': emit(new Uint8Array(1))
    }
  }
  return pushTyped(L, STRING, luaString(new Uint8Array(Buffer.concat(parts))))
}

const packsize: LuaFunction = L => {
  const items = new PackFormat(L, checkBytes(L, 1))
  let total = 0
  while (!items.done) {
    const { kind, size, padding } = items.next(total)
    if (kind === 'string' || kind === 'zero') badArgument(L, 1, 'variable-length format')
    total += padding + size
    if (total > 0x7fffffff) badArgument(L, 1, 'format result too large')
  }
  return pushInteger(L, total)
}

const unpack: LuaFunction = L => {
  const items = new PackFormat(L, checkBytes(L, 1))
  const bytes = checkBytes(L, 2)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const from = argument(L, 3).type === NIL ? 1 : Number(checkInteger(L, 3))
  let at = (from < 0 ? Math.max(bytes.length + from + 1, 1) : from) - 1
  if (at < 0 || at > bytes.length) badArgument(L, 3, 'initial position out of string')
  let results = 0
  while (!items.done) {
    const { kind, size, padding, little } = items.next(at)
    if (padding + size > bytes.length - at) badArgument(L, 2, 'data string too short')
    at += padding
    lauxlib['luaL_checkstack'](L, 2, Buffer.from('too many results'))
    switch (kind) {
      case 'int': case 'uint': pushInteger(L, readInteger(L, bytes, at, size, little, kind === 'int')); break
      case 'float': pushTyped(L, FLOAT, view.getFloat32(at, little)); break
      case 'double': pushTyped(L, FLOAT, view.getFloat64(at, little)); break
      case 'char': pushTyped(L, STRING, luaString(bytes.slice(at, at + size))); break
      case 'string': {
        const length = readInteger(L, bytes, at, size, little, false)
        if (length < 0 || length > bytes.length - at - size) badArgument(L, 2, 'data string too short')
        pushTyped(L, STRING, luaString(bytes.slice(at + size, at + size + Number(length))))
        at += Number(length)
        break
      }
      case 'zero': {
        const end = bytes.indexOf(0, at)
        if (end < 0) badArgument(L, 2, 'unfinished string for format \'z\'')
        pushTyped(L, STRING, luaString(bytes.slice(at, end)))
        at = end + 1
        break
      }
      default: results--
    }
    results++
    at += size
  }
  pushInteger(L, at + 1)
  return results + 1
}

const repeat: LuaFunction = L => {
  const content = checkBytes(L, 1)
  const times = checkInteger(L, 2)
  const separator = argument(L, 3).type === NIL ? EMPTY : checkBytes(L, 3)
  if (times <= 0) return pushTyped(L, STRING, luaString(EMPTY))
  const unit = content.length + separator.length
  const total = Number(times) * unit - separator.length
  if (total > STRING_BYTES_MAX) raise(L, `string longer than ${STRING_BYTES_MAX} bytes`)
  if (unit === 0) return pushTyped(L, STRING, luaString(EMPTY))
  const pattern = separator.length === 0 ? content : Buffer.concat([content, separator])
  return pushTyped(L, STRING, luaString(new Uint8Array(Buffer.alloc(total, pattern))))
}

const EMPTY = new Uint8Array(0)

export const stringReplacements: Record<string, LuaFunction> = { format: formatFunction, pack, packsize, rep: repeat, unpack }
