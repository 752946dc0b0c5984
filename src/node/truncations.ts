// Truncation marks: decided here, kept in system metadata before they are in force, carried out by the engine.

import { Limit } from '../engine/constants.js'
import type { NativeNode } from '../engine/native.js'
import { MetadataFullError, type SystemMetadata } from './system-metadata.js'

const MODULE = 'truncate'

/** A truncation that is in force: records last updated before `lut` (ms since 2010-01-01) are gone. */
export interface Truncation {
  readonly set: string | undefined
  readonly lut: number
}

/** Those of a namespace, as they are handed to the engine when it opens. */
export function truncationsOf (metadata: SystemMetadata, namespace: string): Truncation[] {
  return [...metadata.values(MODULE)].flatMap(([key, lut]) => {
    const [owner, set] = JSON.parse(key) as [string, string | null]
    return owner === namespace ? [{ set: set ?? undefined, lut: Number(lut) }] : []
  })
}

export class Truncations {
  readonly #metadata: SystemMetadata
  readonly #native: NativeNode
  readonly #setsMax: number
  #busy: Promise<unknown> = Promise.resolve()

  constructor (metadata: SystemMetadata, native: NativeNode, setsMax: number = Limit.SETS_MAX) {
    this.#metadata = metadata
    this.#native = native
    this.#setsMax = setsMax
  }

  /**
   * Truncates a set, or without one the namespace: at `lut`, or at now without one. A mark that is later already stays. It is durable and in force
   * when this resolves; when it rejects, it may come into force at the next start.
   */
  truncate (namespace: string, set: string | undefined, lut?: number): Promise<void> {
    return this.#inTurn(async () => {
      const key = keyOf(namespace, set)
      const kept = Number(this.#metadata.get(MODULE, key) ?? 0)
      const mark = lut ?? this.#native.truncationTime(namespace)
      if (mark <= kept) return
      // The engine would refuse it, when it is too late.
      if (kept === 0 && set !== undefined && truncationsOf(this.#metadata, namespace).filter((other) => other.set !== undefined).length >= this.#setsMax) {
        throw new MetadataFullError(`${this.#setsMax} sets of ${namespace} are truncated, the most that may be`)
      }
      await this.#metadata.set(MODULE, key, String(mark))
      this.#native.setTruncation(namespace, set, mark)
    })
  }

  /** Takes a mark away: what was not removed yet shows again. Undoing what is not there is done already. */
  undo (namespace: string, set: string | undefined): Promise<void> {
    return this.#inTurn(async () => {
      await this.#metadata.set(MODULE, keyOf(namespace, set), null)
      this.#native.setTruncation(namespace, set, 0)
    })
  }

  // The engine has to be told in the order in which marks are kept.
  #inTurn (change: () => Promise<void>): Promise<void> {
    const done = this.#busy.then(change)
    this.#busy = done.catch(() => {})
    return done
  }
}

function keyOf (namespace: string, set: string | undefined): string {
  return JSON.stringify([namespace, set ?? null])
}
