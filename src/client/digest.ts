// Which record a key names: RIPEMD-160 of set name, key type and key. The namespace is not part of it.

import { createHash } from 'node:crypto'
import { Limit, ParticleType } from '../engine/constants.js'
import { encodeParticle, type Particle } from './particle.js'
import type { Double } from './value.js'

export const DIGEST_BYTES = 20

/** What a user's key may be. */
export type UserKey = string | number | bigint | Uint8Array | Double

const KEY_TYPES: ReadonlySet<number> = new Set([ParticleType.INTEGER, ParticleType.FLOAT, ParticleType.STRING, ParticleType.BLOB])

/** The key as it is hashed and sent. */
export function encodeKey (key: UserKey): Particle {
  const particle = encodeParticle(key)
  if (!KEY_TYPES.has(particle.type)) throw new TypeError('a key is an integer, a double, a string or bytes')
  return particle
}

/** 20 bytes. */
export function digestOf (set: string, key: UserKey): Buffer {
  const { type, bytes } = encodeKey(key)
  return digestOfKey(set, type, bytes)
}

/** As `digestOf`, of a key as it is sent: its particle type and bytes. */
export function digestOfKey (set: string, type: number, bytes: Uint8Array): Buffer {
  return createHash('ripemd160').update(set).update(Buffer.of(type)).update(bytes).digest()
}

/** 0 to 4095: the low bits of the first two digest bytes, little endian. */
export function partitionOf (digest: Buffer): number {
  return digest.readUInt16LE(0) & (Limit.PARTITIONS - 1)
}
