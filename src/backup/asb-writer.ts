// Records and modules as text of asbackup's format, version 3.1:
//
//   file   = "Version 3.1" LF, "# namespace " escaped LF, ["# first-file" LF], global*, record*
//   global = "* u L " escaped name " " bytes " " content LF                  a module; its content may hold line feeds
//          | index                                                           see asb-index.ts
//   record = ["+ k " key LF] "+ n " escaped LF "+ d " base64 LF ["+ s " escaped LF] "+ g " generation LF "+ t " void time LF "+ b " bins LF bin*
//   key    = "I " integer | "D " double | "S " bytes " " text | "B " characters " " base64 | "B! " bytes " " raw
//   bin    = "- N " name LF | "- Z " name " " ("T" | "F") LF | "- " ("I" | "D") " " name " " number LF | "- " ("S" | "G") " " name " " bytes " " text LF
//          | "- " letter " " name " " characters " " base64 LF | "- " letter "! " name " " bytes " " raw LF
//
// A file that has indexes of expressions is of version 3.2. Readers take two things more: texts in base64 ("X " characters " " base64 as a key, "- X " name " "
// characters " " base64 LF as a bin).
//
// Void times are seconds since 2010-01-01, 0 for never. Names are escaped: a backslash stands before a space, a line feed and a backslash.
// Texts, raw bytes and modules are not: their length says where they end.

import { ParticleType } from '../engine/constants.js'
import type { WireBin, WireRecord } from '../client/query-frame.js'

export const VERSION_LINE = 'Version 3.1'
/** Of a file that has indexes of expressions. */
export const EXPRESSIONS_VERSION_LINE = 'Version 3.2'

/** Letters of values that are bytes: in base64, or raw behind an exclamation mark. */
export const BYTES_LETTERS: ReadonlyMap<number, string> = new Map([
  [ParticleType.BLOB, 'B'], [ParticleType.JAVA_BLOB, 'J'], [ParticleType.CSHARP_BLOB, 'C'], [ParticleType.PYTHON_BLOB, 'P'],
  [ParticleType.RUBY_BLOB, 'R'], [ParticleType.PHP_BLOB, 'H'], [ParticleType.ERLANG_BLOB, 'E'],
  [ParticleType.HLL, 'Y'], [ParticleType.MAP, 'M'], [ParticleType.LIST, 'L']
])

/** Flags and cell count stand before the text of a location; the cells are the server's own and are not kept. */
export const GEOJSON_HEAD_BYTES = 3
const GEOJSON_CELL_BYTES = 8

const BUFFER_BYTES = 1 << 20

/** A record that the format has no words for. */
export class UnwritableError extends Error {
  readonly code = 'UNWRITABLE'
}

export function escapeName (latin1: string): string {
  return /[ \n\\]/.test(latin1) ? latin1.replace(/[ \n\\]/g, '\\$&') : latin1
}

export interface AsbWriterOptions {
  /** One character a byte (latin1), as all names here. */
  readonly namespace: string
  /** Bytes in bins are written raw rather than in base64. */
  readonly compact: boolean
}

/** Collects text until it is taken. */
export class AsbWriter {
  readonly #options: AsbWriterOptions
  #buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  #at = 0

  constructor (options: AsbWriterOptions) {
    this.#options = options
  }

  /** Bytes that `take` would give. */
  get length (): number {
    return this.#at
  }

  /** What was written since the last call. A view that the next write may change. */
  take (): Buffer {
    const taken = this.#buffer.subarray(0, this.#at)
    this.#at = 0
    return taken
  }

  header (first: boolean, version = VERSION_LINE): void {
    this.#text(`${version}\n# namespace ${escapeName(this.#options.namespace)}\n${first ? '# first-file\n' : ''}`)
  }

  module (name: string, content: Uint8Array): void {
    this.#text(`* u L ${escapeName(Buffer.from(name).toString('latin1'))} ${content.length} `)
    this.#bytes(content)
    this.#text('\n')
  }

  /** A line of `indexLine`. */
  index (line: string): void {
    this.#text(line)
  }

  /** Appends a whole record, or throws {@link UnwritableError} and appends nothing. False when its key is left out: one of a language's own blob type has no letter. */
  record (record: WireRecord): boolean {
    const start = this.#at
    try {
      const isWhole = record.key === undefined || this.#key(record.key)
      this.#text(`+ n ${escapeName(this.#options.namespace)}\n+ d ${record.digest.toString('base64')}\n` +
        `${record.set === '' ? '' : `+ s ${escapeName(record.set)}\n`}+ g ${record.generation}\n+ t ${record.voidTime}\n+ b ${record.bins.length}\n`)
      for (const bin of record.bins) this.#bin(bin)
      return isWhole
    } catch (error) {
      this.#at = start
      throw error
    }
  }

  /** False, and nothing is appended, when there is no letter for its type. */
  #key (key: Buffer): boolean {
    const value = key.subarray(1)
    switch (key[0]) {
      case ParticleType.INTEGER:
        this.#text(`+ k I ${value.readBigInt64BE()}\n`)
        return true
      case ParticleType.FLOAT:
        this.#text(`+ k D ${doubleText(value.readDoubleBE())}\n`)
        return true
      case ParticleType.STRING:
        this.#counted('+ k S', value)
        return true
      case ParticleType.BLOB:
        this.#base64('+ k B', value)
        return true
      default: return false
    }
  }

  #bin ({ name, type, value }: WireBin): void {
    const escaped = escapeName(name)
    switch (type) {
      case ParticleType.NULL: return this.#text(`- N ${escaped}\n`)
      case ParticleType.BOOL: return this.#text(`- Z ${escaped} ${value[0] === 0 ? 'F' : 'T'}\n`)
      case ParticleType.INTEGER: return this.#text(`- I ${escaped} ${value.readBigInt64BE()}\n`)
      case ParticleType.FLOAT: return this.#text(`- D ${escaped} ${doubleText(value.readDoubleBE())}\n`)
      case ParticleType.STRING: return this.#counted(`- S ${escaped}`, value)
      case ParticleType.GEOJSON: return this.#counted(`- G ${escaped}`, value.subarray(GEOJSON_HEAD_BYTES + GEOJSON_CELL_BYTES * value.readUInt16BE(1)))
      default: {
        const letter = BYTES_LETTERS.get(type)
        if (letter === undefined) throw new UnwritableError(`bin ${JSON.stringify(name)} has particle type ${type}, which the format does not know`)
        this.#encoded(`- ${letter}`, ` ${escaped}`, value)
      }
    }
  }

  #counted (head: string, value: Uint8Array): void {
    this.#text(`${head} ${value.length} `)
    this.#bytes(value)
    this.#text('\n')
  }

  #encoded (head: string, name: string, value: Buffer): void {
    if (this.#options.compact) return this.#counted(`${head}!${name}`, value)
    this.#base64(`${head}${name}`, value)
  }

  #base64 (head: string, value: Buffer): void {
    const base64 = value.toString('base64')
    this.#text(`${head} ${base64.length} ${base64}\n`)
  }

  #text (latin1: string): void {
    this.#grow(latin1.length)
    this.#at += this.#buffer.write(latin1, this.#at, 'latin1')
  }

  #bytes (bytes: Uint8Array): void {
    this.#grow(bytes.length)
    this.#buffer.set(bytes, this.#at)
    this.#at += bytes.length
  }

  #grow (bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(2 * this.#buffer.length, this.#at + bytes))
    this.#buffer.copy(larger, 0, 0, this.#at)
    this.#buffer = larger
  }
}

/** The shortest text that reads as the same double. */
function doubleText (value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value > 0 ? '+inf' : '-inf'
  return Object.is(value, -0) ? '-0' : String(value)
}
