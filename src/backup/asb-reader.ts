// Reads the text that asb-writer.ts describes. What comes from a file is not believed: lengths are held against limits before anything is taken by them,
// and an error names file and line. A record is handed on when all of it was read, and not before.

import { Limit, ParticleType } from '../engine/constants.js'
import type { WireBin, WireRecord } from '../client/query-frame.js'
import { INT64_MAX, INT64_MIN } from '../client/value.js'
import { BYTES_LETTERS, EXPRESSIONS_VERSION_LINE, GEOJSON_HEAD_BYTES, VERSION_LINE } from './asb-writer.js'

/** 3.2 is 3.1 and indexes of expressions. */
const VERSION_LINES: readonly string[] = [VERSION_LINE, EXPRESSIONS_VERSION_LINE]

export type AsbItem =
  | { readonly kind: 'record', readonly namespace: string, readonly record: WireRecord, readonly place: Place }
  | { readonly kind: 'module', readonly name: string, readonly content: Buffer, readonly place: Place }
  /** A secondary index; the line as it stands in the file. */
  | { readonly kind: 'index', readonly text: string, readonly place: Place }

/** Where an item begins, and where the next one does. */
export interface Place {
  readonly line: number
  readonly offset: number
  readonly end: number
}

/** A file that does not follow the format. */
export class AsbError extends Error {
  readonly code = 'ASB'

  constructor (file: string, line: number, reason: string) {
    super(`${file}:${line}: ${reason}`)
  }
}

const LF = 0x0a
const HASH = 0x23
const SPACE = 0x20
const BACKSLASH = 0x5c
const LINE_BYTES_MAX = 64 * 1024
const VALUE_BYTES_MAX = Limit.PROTO_BODY_BYTES_MAX
const UINT16_MAX = 0xffff
const UINT32_MAX = 0xffff_ffff

const LETTERS: ReadonlyMap<string, number> = new Map([...BYTES_LETTERS].map(([type, letter]) => [letter, type]))

/** Thrown where the bytes at hand end before the item does; never leaves this file. */
const INCOMPLETE = Symbol('incomplete')

export class AsbReader {
  readonly #file: string
  #bytes: Buffer = Buffer.alloc(0)
  #at = 0
  #line = 1
  /** Offset in the file of the first of `#bytes`. */
  #base = 0
  #namespace: string | undefined
  #first = false
  /** The bytes at hand ended before what was read last. */
  #stuck = false

  constructor (file: string) {
    this.#file = file
  }

  /** The namespace that the file says it is of. */
  get namespace (): string | undefined {
    return this.#namespace
  }

  get isFirst (): boolean {
    return this.#first
  }

  /**
   * The items of a file, as many at once as came together. `start` is where an item begins, for those who go on: the header is not expected there.
   * Buffers of items are views of what was read. Throws {@link AsbError}.
   */
  async * items (input: AsyncIterable<Buffer>, start?: { offset: number, line: number }): AsyncGenerator<AsbItem[], void> {
    let headed = start !== undefined
    if (start !== undefined) [this.#base, this.#line] = [start.offset, start.line]
    for await (const chunk of input) {
      this.#append(chunk)
      if (!headed && !(headed = this.#whole(() => this.#header()) !== undefined)) continue
      yield this.#ready()
    }
    if (!headed) throw this.#error('the file ends inside its header')
    if (this.#at < this.#bytes.length) throw this.#error('the file ends here, inside a record or a module')
  }

  #append (chunk: Buffer): void {
    const rest = this.#bytes.subarray(this.#at)
    this.#base += this.#at
    this.#bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    this.#at = 0
  }

  #ready (): AsbItem[] {
    const items: AsbItem[] = []
    while (this.#at < this.#bytes.length) {
      const item = this.#whole(() => this.#bytes[this.#at] === HASH ? this.#meta() : this.#item())
      if (item !== undefined) items.push(item)
      else if (this.#stuck) break
    }
    return items
  }

  /** Runs `read`; where the bytes end too early, everything is as before. */
  #whole<T> (read: () => T): T | undefined {
    const [at, line] = [this.#at, this.#line]
    this.#stuck = false
    try {
      return read()
    } catch (error) {
      if (error !== INCOMPLETE) throw error
      ;[this.#at, this.#line] = [at, line]
      this.#stuck = true
      return undefined
    }
  }

  #header (): true {
    const version = this.#restOfLine()
    if (!VERSION_LINES.includes(version)) throw this.#error(`${JSON.stringify(version.slice(0, 40))} is not ${JSON.stringify(VERSION_LINE)}: no backup file, or one that is compressed or encrypted`, -1)
    return true
  }

  /** A line of the header behind its first. */
  #meta (): undefined {
    this.#expect('# ')
    if (this.#startsWith('namespace ')) this.#namespace = this.#name(Limit.NAMESPACE_BYTES_MAX, 'namespace', LF)
    else if (this.#startsWith('first-file\n')) this.#markFirst()
    else throw this.#error(`${JSON.stringify(`# ${this.#restOfLine().slice(0, 40)}`)} is not known`, -1)
    return undefined
  }

  #markFirst (): void {
    this.#first = true
    this.#line++
  }

  /** Takes a text if it is here. */
  #startsWith (text: string): boolean {
    const there = this.#bytes.toString('latin1', this.#at, this.#at + text.length)
    if (there === text) this.#at += text.length
    else if (text.startsWith(there)) throw INCOMPLETE
    return there === text
  }

  #item (): AsbItem {
    const start = { line: this.#line, offset: this.#base + this.#at }
    const placed = (): Place => ({ ...start, end: this.#base + this.#at })
    switch (this.#peek()) {
      case '+': return { kind: 'record', ...this.#record(), place: placed() }
      case '*': {
        this.#expect('* ')
        const kind = this.#token()
        if (kind === 'u') return { kind: 'module', ...this.#module(), place: placed() }
        if (kind !== 'i' && kind !== 'e') throw this.#error(`a global line of kind ${JSON.stringify(kind)}`)
        return { kind: 'index', text: `* ${kind} ${this.#restOfEscapedLine()}`, place: placed() }
      }
      default: throw this.#error(`a record begins with "+ ", not with ${JSON.stringify(this.#bytes.toString('latin1', this.#at, this.#at + 20))}`)
    }
  }

  #module (): { name: string, content: Buffer } {
    const type = this.#token()
    if (type !== 'L') throw this.#error(`a module of type ${JSON.stringify(type)}`)
    const name = Buffer.from(this.#name(Limit.UDF_NAME_BYTES_MAX + 4, 'module name'), 'latin1').toString('utf8')
    const content = this.#counted()
    return { name, content }
  }

  #record (): { namespace: string, record: WireRecord } {
    let key: Buffer | undefined
    let field = this.#headerLine()
    if (field === 'k') {
      key = this.#key()
      field = this.#headerLine()
    }
    this.#is(field, 'n')
    const namespace = this.#name(Limit.NAMESPACE_BYTES_MAX, 'namespace', LF)
    this.#is(this.#headerLine(), 'd')
    const digest = this.#base64(this.#restOfLine(), -1)
    if (digest.length !== 20) throw this.#error(`a digest of ${digest.length} bytes, not 20`, -1)
    field = this.#headerLine()
    let set = ''
    if (field === 's') {
      set = this.#name(Limit.SET_BYTES_MAX, 'set', LF)
      field = this.#headerLine()
    }
    this.#is(field, 'g')
    const generation = this.#unsigned(this.#restOfLine(), UINT16_MAX, -1)
    this.#is(this.#headerLine(), 't')
    const voidTime = this.#unsigned(this.#restOfLine(), UINT32_MAX, -1)
    this.#is(this.#headerLine(), 'b')
    const count = this.#unsigned(this.#restOfLine(), UINT16_MAX, -1)
    const bins: WireBin[] = []
    for (let i = 0; i < count; i++) bins.push(this.#bin())
    return { namespace, record: { digest, set, key, generation, voidTime, bins } }
  }

  #headerLine (): string {
    this.#expect('+ ')
    return this.#token()
  }

  #is (found: string, wanted: string): void {
    if (found !== wanted) throw this.#error(`"+ ${found}" where "+ ${wanted}" is due`)
  }

  #key (): Buffer {
    const kind = this.#token()
    switch (kind) {
      case 'I': return keyOf(ParticleType.INTEGER, this.#integer(this.#restOfLine()))
      case 'D': return keyOf(ParticleType.FLOAT, this.#double(this.#restOfLine()))
      case 'S': return keyOf(ParticleType.STRING, this.#counted())
      case 'X': return keyOf(ParticleType.STRING, this.#countedBase64())
      case 'B': return keyOf(ParticleType.BLOB, this.#countedBase64())
      case 'B!': return keyOf(ParticleType.BLOB, this.#counted())
      default: throw this.#error(`a key of kind ${JSON.stringify(kind)}`)
    }
  }

  #bin (): WireBin {
    this.#expect('- ')
    const kind = this.#token()
    if (kind === 'N') return { name: this.#name(Limit.BIN_NAME_BYTES_MAX, 'bin name', LF), type: ParticleType.NULL, value: Buffer.alloc(0) }
    const name = this.#name(Limit.BIN_NAME_BYTES_MAX, 'bin name')
    switch (kind) {
      case 'I': return { name, type: ParticleType.INTEGER, value: this.#integer(this.#restOfLine()) }
      case 'D': return { name, type: ParticleType.FLOAT, value: this.#double(this.#restOfLine()) }
      case 'S': return { name, type: ParticleType.STRING, value: this.#counted() }
      case 'X': return { name, type: ParticleType.STRING, value: this.#countedBase64() }
      case 'G': return { name, type: ParticleType.GEOJSON, value: Buffer.concat([Buffer.alloc(GEOJSON_HEAD_BYTES), this.#counted()]) }
      case 'Z': {
        const text = this.#restOfLine()
        if (text !== 'T' && text !== 'F') throw this.#error(`${JSON.stringify(text.slice(0, 40))} is neither T nor F`, -1)
        return { name, type: ParticleType.BOOL, value: Buffer.of(text === 'T' ? 1 : 0) }
      }
      default: {
        const raw = kind.endsWith('!')
        const type = LETTERS.get(raw ? kind.slice(0, -1) : kind)
        if (type === undefined) throw this.#error(`a bin of kind ${JSON.stringify(kind)}${kind === 'U' ? ': large data types are no more' : ''}`)
        return { name, type, value: raw ? this.#counted() : this.#countedBase64() }
      }
    }
  }

  /** A length, that many bytes, and the end of the line. */
  #counted (): Buffer {
    const length = this.#unsigned(this.#token(), VALUE_BYTES_MAX)
    const end = this.#at + length
    if (end + 1 > this.#bytes.length) throw INCOMPLETE
    const value = this.#bytes.subarray(this.#at, end)
    if (this.#bytes[end] !== LF) throw this.#error(`no line feed behind a value of ${length} bytes`)
    for (let at = value.indexOf(LF); at >= 0; at = value.indexOf(LF, at + 1)) this.#line++
    this.#at = end + 1
    this.#line++
    return value
  }

  #countedBase64 (): Buffer {
    return this.#base64(this.#counted().toString('latin1'), -1)
  }

  #base64 (text: string, lines = 0): Buffer {
    const decoded = Buffer.from(text, 'base64')
    const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0
    // Letters that are none of base64 are left out of the result, which is then too short.
    if (text.length % 4 !== 0 || decoded.length !== text.length / 4 * 3 - padding) throw this.#error(`${JSON.stringify(text.slice(0, 40))} is not base64`, lines)
    return decoded
  }

  #integer (text: string): Buffer {
    const value = /^[+-]?\d{1,20}$/.test(text) ? BigInt(text) : undefined
    if (value === undefined || value < INT64_MIN || value > INT64_MAX) throw this.#error(`${JSON.stringify(text.slice(0, 40))} is not an integer of 64 bits`, -1)
    const bytes = Buffer.allocUnsafe(8)
    bytes.writeBigInt64BE(value)
    return bytes
  }

  #double (text: string): Buffer {
    const bytes = Buffer.allocUnsafe(8)
    const special = /^([+-]?)(?:inf(?:inity)?|(nan))$/i.exec(text)
    if (special !== null) bytes.writeDoubleBE(special[2] === undefined ? (special[1] === '-' ? -Infinity : Infinity) : NaN)
    else if (/^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(text)) bytes.writeDoubleBE(Number(text))
    else throw this.#error(`${JSON.stringify(text.slice(0, 40))} is not a double`, -1)
    return bytes
  }

  #unsigned (text: string, max: number, lines = 0): number {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : NaN
    if (!(value <= max)) throw this.#error(`${JSON.stringify(text.slice(0, 40))} is not a number from 0 to ${max}`, lines)
    return value
  }

  #peek (): string {
    return String.fromCharCode(this.#bytes[this.#at]!)
  }

  #expect (text: string): void {
    if (this.#at + text.length > this.#bytes.length) throw INCOMPLETE
    const found = this.#bytes.toString('latin1', this.#at, this.#at + text.length)
    if (found !== text) throw this.#error(`${JSON.stringify(text)} is due, not ${JSON.stringify(found)}`)
    this.#at += text.length
  }

  /** Up to the next space, which is taken. */
  #token (): string {
    const end = this.#bytes.indexOf(SPACE, this.#at)
    const line = this.#bytes.indexOf(LF, this.#at)
    if (line >= 0 && (end < 0 || line < end)) throw this.#error('the line ends too early')
    if (end < 0) throw this.#short()
    const token = this.#bytes.toString('latin1', this.#at, end)
    this.#at = end + 1
    return token
  }

  #restOfLine (): string {
    const end = this.#bytes.indexOf(LF, this.#at)
    if (end < 0) throw this.#short()
    const text = this.#bytes.toString('latin1', this.#at, end)
    this.#at = end + 1
    this.#line++
    return text
  }

  /** Up to a line feed that no backslash stands before, as it stands in the file. */
  #restOfEscapedLine (): string {
    let lines = 1
    for (let at = this.#at; at < this.#bytes.length; at++) {
      const byte = this.#bytes[at]
      if (byte === BACKSLASH) {
        if (this.#bytes[++at] === LF) lines++
      } else if (byte === LF) {
        const text = this.#bytes.toString('latin1', this.#at, at)
        this.#at = at + 1
        this.#line += lines
        return text
      }
    }
    throw this.#short()
  }

  /** An escaped name of at most so many bytes, and the space or line feed behind it. */
  #name (bytesMax: number, what: string, terminator = SPACE): string {
    let name = ''
    for (let at = this.#at; ; at++) {
      if (at >= this.#bytes.length) throw this.#short()
      let byte = this.#bytes[at]!
      if (byte === terminator) {
        this.#at = at + 1
        if (terminator === LF) this.#line++
        return name
      }
      if (byte === LF || byte === SPACE) throw this.#error(`the ${what} ${JSON.stringify(name)} ends with the wrong byte`)
      if (byte === BACKSLASH) {
        if (++at >= this.#bytes.length) throw this.#short()
        byte = this.#bytes[at]!
      }
      name += String.fromCharCode(byte)
      if (name.length > bytesMax) throw this.#error(`the ${what} ${JSON.stringify(name)}... is longer than ${bytesMax} bytes`)
    }
  }

  #short (): unknown {
    return this.#bytes.length - this.#at > LINE_BYTES_MAX ? this.#error(`a line of more than ${LINE_BYTES_MAX} bytes`) : INCOMPLETE
  }

  /** `lines` is -1 for what stood on the line that was just ended. */
  #error (reason: string, lines = 0): AsbError {
    return new AsbError(this.#file, this.#line + lines, reason)
  }
}

function keyOf (type: number, value: Buffer): Buffer {
  return Buffer.concat([Buffer.of(type), value])
}
