// An in-process native side for tests.
//
// Fault model. It keeps what the real one promises: the newest version of each changed record, one version of a record in flight at a time,
// entries handed out until their token is confirmed, last-ship times that never pass an unconfirmed change. It may do what the real one may do: hand
// out fewer entries than asked for (`shortTakes`), fail a take (`failTakes`), and restart (`restart`), which forgets queues and tokens and walks all
// records from the given ship times on; tokens of a former life are ignored then. Confirming a token twice in one life is an error of the caller
// and throws. Digests are SHA-1, as good as any 20 bytes; records have one integer bin and time is a counter.

import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { ChangeBin } from '../../../connectors/change.js'
import { encodeFrame, integer } from '../../../connectors/testing/frame.js'
import { Random } from '../../../test/support/seed.js'
import { Limit, ParticleType } from '../../engine/constants.js'
import { ChangeKind, Outcome } from '../batch.js'
import type { XdrNative } from '../native.js'

const ENTRY_HEAD_BYTES = 24

export interface MemoryRecord {
  readonly namespace: string
  readonly set: string
  readonly userKey: string
  readonly digest: Buffer
  readonly partition: number
  generation: number
  lut: bigint
  /** Undefined once deleted. */
  value: bigint | undefined
  padding: number
}

interface InFlight {
  readonly id: string
  readonly lut: bigint
}

interface Queue {
  readonly namespaces: readonly string[]
  /** Records with a change that is not in flight, oldest first. */
  readonly waiting: Set<string>
  readonly inFlight: Map<bigint, InFlight>
  readonly busy: Set<string>
  /** For each record with something unconfirmed, the oldest such time. */
  readonly unconfirmed: Map<string, bigint>
  readonly shipTimes: Map<string, BigUint64Array>
}

export class MemoryNative implements XdrNative {
  readonly records = new Map<string, MemoryRecord>()
  readonly #queues = new Map<string, Queue>()
  readonly #random: Random
  #clock = 1n
  #token = 1n
  shortTakes = 0
  failTakes = 0
  abandoned = 0
  retried = 0

  constructor (dcs: Readonly<Record<string, readonly string[]>>, seed = 1) {
    this.#random = new Random(seed)
    for (const [name, namespaces] of Object.entries(dcs)) {
      this.#queues.set(name, {
        namespaces,
        waiting: new Set(),
        inFlight: new Map(),
        busy: new Set(),
        unconfirmed: new Map(),
        shipTimes: new Map(namespaces.map((namespace) => [namespace, new BigUint64Array(Limit.PARTITIONS)]))
      })
    }
  }

  put (namespace: string, userKey: string, value: bigint, { set = 'set', padding = 0 } = {}): MemoryRecord {
    return this.#commit(namespace, set, userKey, value, padding)
  }

  delete (namespace: string, userKey: string, { set = 'set' } = {}): MemoryRecord {
    return this.#commit(namespace, set, userKey, undefined, 0)
  }

  /** Nothing waits, nothing is in flight. */
  isDone (dc: string): boolean {
    const queue = this.#queue(dc)
    return queue.waiting.size === 0 && queue.inFlight.size === 0
  }

  /** The oldest unconfirmed time of a partition, if there is one: what a last-ship time must stay below. */
  oldestUnconfirmed (dc: string, namespace: string, partition: number): bigint | undefined {
    let oldest: bigint | undefined
    for (const [id, lut] of this.#queue(dc).unconfirmed) {
      const record = this.records.get(id)!
      if (record.namespace === namespace && record.partition === partition && (oldest === undefined || lut < oldest)) oldest = lut
    }
    return oldest
  }

  /** The process died and is back: records are there, queues and tokens are not. */
  restart (): void {
    for (const queue of this.#queues.values()) {
      queue.waiting.clear()
      queue.inFlight.clear()
      queue.busy.clear()
      queue.unconfirmed.clear()
      for (const times of queue.shipTimes.values()) times.fill(0n)
    }
    this.#token += 1n << 32n
  }

  xdrSetShipTimes (dc: string, namespace: string, times: Uint8Array): void {
    const queue = this.#queue(dc)
    const own = queue.shipTimes.get(namespace)!
    const view = new DataView(times.buffer, times.byteOffset, times.byteLength)
    for (let partition = 0; partition < Limit.PARTITIONS; partition++) own[partition] = view.getBigUint64(partition * 8, true)
    for (const [id, record] of this.records) {
      if (record.namespace !== namespace || record.lut <= own[record.partition]!) continue
      queue.waiting.add(id)
      queue.unconfirmed.set(id, record.lut)
    }
  }

  xdrShipTimes (dc: string, namespace: string): Buffer {
    const queue = this.#queue(dc)
    const times = BigUint64Array.from(queue.shipTimes.get(namespace)!)
    for (const [id, lut] of queue.unconfirmed) {
      const record = this.records.get(id)!
      if (record.namespace === namespace && lut <= times[record.partition]!) times[record.partition] = lut - 1n
    }
    return Buffer.from(times.buffer)
  }

  async xdrTake (dc: string, bytesMax: number, recordsMax: number): Promise<Buffer> {
    await nextTurn()
    if (this.#random.next() < this.failTakes) throw new Error('take failed')
    const queue = this.#queue(dc)
    const limit = this.#random.next() < this.shortTakes ? Math.ceil(recordsMax * this.#random.next()) : recordsMax
    const parts: Buffer[] = []
    let at = 4
    let count = 0
    for (const id of queue.waiting) {
      if (count === limit) break
      if (queue.busy.has(id)) continue
      const record = this.records.get(id)!
      const frame = frameOf(record)
      const size = ENTRY_HEAD_BYTES + frame.length
      if (at + size > bytesMax) break
      const token = this.#token++
      const head = Buffer.alloc(ENTRY_HEAD_BYTES)
      head.writeUInt32LE(size, 0)
      head.writeUInt32LE(frame.length, 4)
      head.writeBigUInt64LE(token, 8)
      head.writeUInt16LE(record.partition, 16)
      head[18] = record.value === undefined ? ChangeKind.DELETE : ChangeKind.WRITE
      head[19] = queue.namespaces.indexOf(record.namespace)
      parts.push(head, frame)
      at += size
      count++
      queue.waiting.delete(id)
      queue.busy.add(id)
      queue.inFlight.set(token, { id, lut: record.lut })
    }
    const counted = Buffer.alloc(4)
    counted.writeUInt32LE(count)
    return Buffer.concat([counted, ...parts])
  }

  xdrConfirm (dc: string, outcomes: Uint8Array): void {
    const queue = this.#queue(dc)
    const view = new DataView(outcomes.buffer, outcomes.byteOffset, outcomes.byteLength)
    for (let at = 0; at < outcomes.byteLength; at += 16) {
      const token = view.getBigUint64(at, true)
      const entry = queue.inFlight.get(token)
      if (entry === undefined) {
        if (token >> 32n === this.#token >> 32n) throw new Error(`token ${token} is not in flight`)
        continue
      }
      queue.inFlight.delete(token)
      queue.busy.delete(entry.id)
      const record = this.records.get(entry.id)!
      const outcome = view.getUint8(at + 8)
      if (outcome === Outcome.RETRY) {
        this.retried++
        queue.waiting.add(entry.id)
        continue
      }
      if (outcome === Outcome.ABANDON) this.abandoned++
      const times = queue.shipTimes.get(record.namespace)!
      if (entry.lut > times[record.partition]!) times[record.partition] = entry.lut
      if (record.lut === entry.lut) queue.unconfirmed.delete(entry.id)
      else queue.unconfirmed.set(entry.id, entry.lut + 1n)
    }
  }

  xdrStats (dc: string): string {
    const queue = this.#queue(dc)
    return JSON.stringify(Object.fromEntries(queue.namespaces.map((namespace) => {
      const of = (ids: Iterable<string>): number => [...ids].filter((id) => this.records.get(id)!.namespace === namespace).length
      return [namespace, { in_queue: of(queue.waiting), in_progress: of([...queue.inFlight.values()].map(({ id }) => id)), lag_ms: of(queue.unconfirmed.keys()), recoveries: 1, hot_keys: 0 }]
    })))
  }

  #commit (namespace: string, set: string, userKey: string, value: bigint | undefined, padding: number): MemoryRecord {
    const id = `${namespace}/${set}/${userKey}`
    let record = this.records.get(id)
    if (record === undefined) {
      const digest = createHash('sha1').update(set).update(userKey).digest()
      record = { namespace, set, userKey, digest, partition: digest.readUInt16LE(0) % Limit.PARTITIONS, generation: 0, lut: 0n, value, padding }
      this.records.set(id, record)
    }
    record.generation++
    record.lut = this.#clock++
    record.value = value
    record.padding = padding
    for (const queue of this.#queues.values()) {
      if (!queue.namespaces.includes(namespace)) continue
      queue.waiting.add(id)
      if (!queue.unconfirmed.has(id)) queue.unconfirmed.set(id, record.lut)
    }
    return record
  }

  #queue (dc: string): Queue {
    const queue = this.#queues.get(dc)
    if (queue === undefined) throw new Error(`no datacenter ${dc}`)
    return queue
  }
}

function frameOf (record: MemoryRecord): Buffer {
  const bins: ChangeBin[] = []
  if (record.value !== undefined) {
    bins.push({ name: 'v', type: ParticleType.INTEGER, value: integer(record.value) })
    if (record.padding > 0) bins.push({ name: 'pad', type: ParticleType.BLOB, value: Buffer.alloc(record.padding, 7) })
  }
  return encodeFrame({
    kind: record.value === undefined ? 'delete' : 'write',
    namespace: record.namespace,
    set: record.set,
    digest: record.digest,
    key: { type: ParticleType.STRING, value: Buffer.from(record.userKey) },
    generation: record.generation,
    lut: record.lut,
    bins
  })
}
