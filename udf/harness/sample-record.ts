// A record of a test: a key, and what is stored under it, if anything. It changes as a node would change it.

import { hiddenMetatable, HostObject, objectValue } from '../host-object.js'
import type { LuaState, TValue } from '../fengari.js'
import { BOOLEAN, INTEGER, NIL, raise, STRING, stringValue, textOf, Value } from '../lua.js'
import { Action, TTL_NEVER, TtlAction } from '../lane.js'
import type { BinParticle, TaskFields, TaskResult } from '../lane.js'
import { decodeParticle } from '../particle.js'
import { LuaMap } from '../values.js'
import type { MapEntry } from '../values.js'
import { EPOCH_UNIX_SECONDS, ParticleType } from '../../src/engine/constants.js'

const GENERATION_MAX = 65535
const EPOCH_UNIX_MS = EPOCH_UNIX_SECONDS * 1000

// Of the stored image (docs/ARCHITECTURE.md, Storage).
const IMAGE_HEADER_BYTES = 48
const IMAGE_KEY_HEADER_BYTES = 5
const IMAGE_BIN_HEADER_BYTES = 6
const IMAGE_UNIT_BYTES = 16

const metatable = hiddenMetatable('sample record')

export interface SampleFields {
  readonly set: string
  /** Type byte and value, or undefined for a record that is found by its digest. */
  readonly key: Uint8Array | undefined
  readonly digest: Uint8Array
  /** None: there is no record yet. */
  readonly bins: readonly BinParticle[]
  readonly generation: number
  /** Seconds; undefined for a record that never expires. */
  readonly ttlSeconds: number | undefined
}

export class SampleRecord extends HostObject {
  readonly #set: string
  #key: Uint8Array | undefined
  readonly #digest: Uint8Array
  /** Milliseconds since 1970. */
  readonly #now: () => number
  #bins: ReadonlyMap<string, BinParticle>
  #generation: number
  /** Seconds since 1970, or undefined for never. */
  #expiresAt: number | undefined
  #updatedAt: number

  constructor ({ set, key, digest, bins, generation, ttlSeconds }: SampleFields, now: () => number) {
    super(metatable)
    this.#set = set
    this.#key = key
    this.#digest = digest
    this.#now = now
    this.#bins = new Map(bins.map(bin => [bin.name, bin]))
    this.#generation = bins.length === 0 ? 0 : generation
    this.#updatedAt = now()
    this.#expiresAt = ttlSeconds === undefined ? undefined : this.#seconds() + ttlSeconds
  }

  get kind (): string {
    return 'sample record'
  }

  #seconds (): number {
    return Math.floor(this.#now() / 1000)
  }

  /** An expired record is not there. */
  get exists (): boolean {
    return this.#bins.size > 0 && (this.#expiresAt === undefined || this.#expiresAt > this.#seconds())
  }

  /** The record's part of a task. */
  task (): Partial<TaskFields> {
    const identity = { namespace: 'test', set: this.#set, digest: this.#digest, ...(this.#key === undefined ? {} : { key: this.#key }) }
    if (!this.exists) return { ...identity, exists: false }
    return {
      ...identity,
      exists: true,
      generation: this.#generation,
      lastUpdateTime: BigInt(Math.floor(this.#updatedAt) - EPOCH_UNIX_MS),
      voidTime: this.#expiresAt === undefined ? 0 : this.#expiresAt - EPOCH_UNIX_SECONDS,
      ttlSeconds: this.#expiresAt === undefined ? TTL_NEVER : this.#expiresAt - this.#seconds(),
      storedBytes: this.#storedBytes([...this.#bins.values()]),
      bins: [...this.#bins.values()]
    }
  }

  #storedBytes (bins: readonly BinParticle[]): number {
    const bytes = bins.reduce((sum, { name, value }) => sum + IMAGE_BIN_HEADER_BYTES + Buffer.byteLength(name) + value.length,
      IMAGE_HEADER_BYTES + Buffer.byteLength(this.#set) + (this.#key === undefined ? 0 : IMAGE_KEY_HEADER_BYTES + this.#key.length))
    return Math.ceil(bytes / IMAGE_UNIT_BYTES) * IMAGE_UNIT_BYTES
  }

  /** Carries out what a call wants. Returns how many bytes the record would have when those are more than `bytesMax`, and changes nothing then. */
  carryOut ({ action, bins, ttlAction, ttlSeconds, dropKey }: TaskResult, bytesMax: number): number | null {
    if (action === Action.NONE) return null
    const before = this.exists
    const after = new Map(before ? this.#bins : [])
    if (action === Action.REMOVE) after.clear()
    for (const bin of bins) {
      if (bin.type === ParticleType.NULL) after.delete(bin.name)
      else after.set(bin.name, bin)
    }
    const bytes = this.#storedBytes([...after.values()])
    if (bytes > bytesMax) return bytes
    this.#bins = after
    if (after.size === 0) {
      this.#generation = 0
      this.#expiresAt = undefined
      return null
    }
    this.#generation = before && this.#generation < GENERATION_MAX ? this.#generation + 1 : 1
    this.#updatedAt = this.#now()
    if (ttlAction === TtlAction.SET) this.#expiresAt = this.#seconds() + ttlSeconds
    // The namespace's default is to never expire, as a node has it without configuration.
    else if (ttlAction !== TtlAction.UNCHANGED || !before) this.#expiresAt = undefined
    if (dropKey) this.#key = undefined
    return null
  }

  get #binsMap (): LuaMap {
    const entries = new Map<unknown, MapEntry>()
    if (this.exists) {
      for (const { name, type, value } of this.#bins.values()) {
        const key = stringValue(name)
        entries.set(LuaMap.identity(key), { key, value: decodeParticle(type, value, new DataView(value.buffer, value.byteOffset, value.length), 0, value.length) })
      }
    }
    return LuaMap.of(entries)
  }

  #field (name: string): TValue | undefined {
    switch (name) {
      case 'bins': return objectValue(this.#binsMap)
      case 'exists': return new Value(BOOLEAN, this.exists)
      case 'generation': return new Value(INTEGER, this.exists ? this.#generation : 0)
      case 'ttl': return new Value(INTEGER, this.exists && this.#expiresAt !== undefined ? this.#expiresAt - this.#seconds() : 0)
      case 'set': return stringValue(this.#set)
      case 'key': {
        const key = this.#key
        if (key === undefined) return new Value(NIL, null)
        return decodeParticle(key[0]!, key, new DataView(key.buffer, key.byteOffset, key.length), 1, key.length - 1)
      }
      default: return undefined
    }
  }

  luaIndex (L: LuaState, key: TValue, out: TValue): void {
    const value = key.type === STRING ? this.#field(textOf(key)) : undefined
    if (value === undefined) raise(L, 'a sample record has bins, exists, generation, ttl, set and key; its bins are in the map bins')
    out.type = value.type
    out.value = value.value
  }

  override luaNewIndex (L: LuaState): void {
    raise(L, 'a sample record is changed by functions only, through test.apply')
  }
}
