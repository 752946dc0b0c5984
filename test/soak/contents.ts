// What a record holds: its key, its version, and bytes that follow from both, so that a reader knows every byte of it.
import type { Bins } from '../../src/client/value.js'
import { Random } from '../support/seed.js'

const POOL_BYTES = 1 << 20
/** An image's header, set and bin names, numbers and padding, about. */
const OVERHEAD_BYTES = 110

export class Contents {
  readonly #pool: Buffer

  constructor (seed: number, readonly valueBytesMax: number) {
    const random = new Random(seed)
    this.#pool = Buffer.alloc(POOL_BYTES + valueBytesMax)
    for (let at = 0; at + 4 <= this.#pool.length; at += 4) this.#pool.writeUInt32LE(Math.floor(random.next() * 2 ** 32), at)
  }

  /** Stored bytes of a record on average, about. */
  get storedBytesMean (): number {
    return OVERHEAD_BYTES + this.valueBytesMax / 2
  }

  bins (key: number, version: number): Bins {
    return { key, version, value: this.#value(key, version) }
  }

  /** The version that the bins are of. Throws when they are not exactly what was written for it. */
  versionOf (key: number, bins: Bins): number {
    const { version, value, ...rest } = bins
    if (typeof version !== 'number' || !Buffer.isBuffer(value) || rest['key'] !== key || Object.keys(rest).length !== 1) {
      throw new ContentsError(`record ${key} holds key ${String(rest['key'])}, version ${String(version)}`)
    }
    if (!this.#value(key, version).equals(value)) throw new ContentsError(`record ${key} of version ${version} holds other bytes than were written`)
    return version
  }

  #value (key: number, version: number): Buffer {
    const mixed = Math.imul(key ^ Math.imul(version, 0x9e3779b1), 0x85ebca6b) >>> 0
    const length = mixed % (this.valueBytesMax + 1)
    const at = (mixed >>> 8) % POOL_BYTES
    return this.#pool.subarray(at, at + length)
  }
}

/** A record is not what it must be. */
export class ContentsError extends Error {}
