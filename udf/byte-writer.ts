// A buffer that grows, written front to back and reused. Multi-byte numbers say their order in the method's name.

import { writeInt64 } from './lua-integer.js'
import type { LuaInteger } from './lua-integer.js'

/** No batch of results and no value is larger: a record holds at most 8 MiB. */
export const WRITER_BYTES_MAX = 256 * 1024 * 1024

export class ByteWriter {
  bytes: Uint8Array
  view: DataView
  length = 0

  constructor (capacity: number) {
    this.bytes = new Uint8Array(capacity)
    this.view = new DataView(this.bytes.buffer)
  }

  /** Makes room for `count` more bytes and returns where they start; the length grows by them. */
  reserve (count: number): number {
    const at = this.length
    const end = at + count
    if (end > this.bytes.length) this.#grow(end)
    this.length = end
    return at
  }

  #grow (end: number): void {
    if (end > WRITER_BYTES_MAX) throw new RangeError(`more than ${WRITER_BYTES_MAX} bytes in one buffer`)
    const larger = new Uint8Array(Math.max(end, this.bytes.length * 2))
    larger.set(this.bytes.subarray(0, this.length))
    this.bytes = larger
    this.view = new DataView(larger.buffer)
  }

  u8 (value: number): void {
    const at = this.reserve(1)
    this.bytes[at] = value
  }

  u16be (value: number): void {
    const at = this.reserve(2)
    this.view.setUint16(at, value)
  }

  u32be (value: number): void {
    const at = this.reserve(4)
    this.view.setUint32(at, value)
  }

  i64be (value: LuaInteger): void {
    const at = this.reserve(8)
    writeInt64(this.view, at, value)
  }

  f64be (value: number): void {
    const at = this.reserve(8)
    this.view.setFloat64(at, value)
  }

  raw (source: Uint8Array): void {
    const at = this.reserve(source.length)
    this.bytes.set(source, at)
  }

  /** A copy of what was written since `from`. */
  copyFrom (from: number): Uint8Array {
    return this.bytes.slice(from, this.length)
  }
}
