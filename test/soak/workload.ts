// Requests with a model beside them: every answer is compared with what it must be.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client } from '../../src/client/client.js'
import { RecordError } from '../../src/client/errors.js'
import type { Key, WritePolicy } from '../../src/client/request.js'
import { ResultCode } from '../../src/engine/constants.js'
import type { Random } from '../support/seed.js'
import { ContentsError, type Contents } from './contents.js'
import { type Model, type Version } from './model.js'
import { Latencies } from './samples.js'

export const NAMESPACE = 'test'
const SET = 'soak'
const TIMEOUT_MS = 20_000
/** How long a writer stands back when the device is behind. */
const OVERLOAD_PAUSE_MS = 5
const TTL_SECONDS = { min: 3, max: 30 }
/** Void times are whole seconds, and a clock is read on both sides. */
const EXPIRY_SLACK_MS = 2_000
const FINDINGS_MAX = 20

/** Shares of the requests; the rest are writes. */
export interface Mix {
  reads: number
  deletes: number
  /** Writes with a time to live. */
  expiring: number
  /** Deletes leave tombstones, so that a crash does not undo them. */
  durableDeletes: boolean
}

export class Workload {
  operations = 0
  overloads = 0
  errors = 0
  /** Answers that cannot be, and errors: the first of them. */
  readonly findings: string[] = []
  reads = new Latencies()
  writes = new Latencies()
  /** Errors are no news while a node is being killed. */
  forgiving = false

  constructor (readonly model: Model, readonly contents: Contents, readonly random: Random) {}

  key (index: number): Key {
    return { namespace: NAMESPACE, set: SET, key: index }
  }

  find (what: string): void {
    this.errors++
    if (this.findings.length < FINDINGS_MAX) this.findings.push(what)
  }

  /** Writes every record once, many at a time. */
  async fill (client: Client, workers: number, stopped: () => boolean): Promise<void> {
    let next = 0
    await Promise.all(Array.from({ length: workers }, async () => {
      while (next < this.model.keys && !stopped()) {
        const key = next++
        while (!await this.#write(client, key, {}) && !stopped());
      }
    }))
  }

  /** Requests until `stopped`, at most `rate` a second (0: as many as come back). */
  async run (client: Client, mix: Mix, { workers, rate }: { workers: number, rate: number }, stopped: () => boolean): Promise<void> {
    const pace = rate === 0 ? 0 : workers * 1000 / rate
    await Promise.all(Array.from({ length: workers }, async (_, worker) => {
      let due = performance.now() + pace * worker / workers
      while (!stopped()) {
        const wait = due - performance.now()
        if (wait > 1) await sleep(Math.min(wait, 100))
        if (performance.now() + 1 < due) continue
        await this.one(client, mix)
        // What was late is not caught up with: the rate is a bound.
        due = Math.max(due + pace, performance.now() - pace)
      }
    }))
  }

  /** One request on a random record that has none in flight. */
  async one (client: Client, mix: Mix): Promise<void> {
    const key = this.random.integer(0, this.model.keys)
    const draw = this.random.next()
    if (!this.model.take(key)) {
      await sleep(1)
      return
    }
    try {
      if (draw < mix.reads) await this.#read(client, key)
      else if (draw < mix.reads + mix.deletes) await this.#remove(client, key, mix.durableDeletes)
      else if (draw < mix.reads + mix.deletes + mix.expiring) {
        await this.#write(client, key, { ttl: this.random.integer(TTL_SECONDS.min, TTL_SECONDS.max + 1) })
      } else await this.#write(client, key, this.random.next() < 0.5 ? { exists: 'replace' } : {})
    } finally {
      this.model.give(key)
    }
  }

  /** Reads every record and compares it. */
  async check (client: Client, workers: number): Promise<void> {
    let next = 0
    await Promise.all(Array.from({ length: workers }, async () => {
      while (next < this.model.keys) await this.#read(client, next++)
    }))
  }

  async #read (client: Client, key: number): Promise<void> {
    const sentAt = Date.now()
    const started = performance.now()
    try {
      const record = await client.get(this.key(key), { timeoutMs: TIMEOUT_MS })
      this.reads.add(performance.now() - started)
      this.operations++
      const seen = record === null ? 0 : this.contents.versionOf(key, record.bins)
      const wrong = this.model.contradicts(key, seen, sentAt, Date.now())
      if (wrong !== undefined) this.find(wrong)
    } catch (error) {
      if (error instanceof ContentsError) this.find(error.message)
      else this.#failed('read', key, error)
    }
  }

  /** False if the device was behind and nothing was written. */
  async #write (client: Client, key: number, policy: WritePolicy & { ttl?: number }): Promise<boolean> {
    const to = this.model.nextVersion(key)
    const sentAt = Date.now()
    return this.#change('write', key, to, async () => {
      await client.put(this.key(key), this.contents.bins(key, to), { ...policy, timeoutMs: TIMEOUT_MS, retriesMax: 0 })
      const ttlMs = policy.ttl === undefined ? undefined : policy.ttl * 1000
      return ttlMs === undefined ? undefined : { from: sentAt + ttlMs - EXPIRY_SLACK_MS, to: Date.now() + ttlMs + EXPIRY_SLACK_MS }
    })
  }

  async #remove (client: Client, key: number, durableDelete: boolean): Promise<void> {
    await this.#change('delete', key, 0, async () => {
      await client.remove(this.key(key), { durableDelete, timeoutMs: TIMEOUT_MS, retriesMax: 0 })
      return undefined
    })
  }

  async #change (what: string, key: number, to: Version, change: () => Promise<{ from: number, to: number } | undefined>): Promise<boolean> {
    const started = performance.now()
    try {
      const expiry = await change()
      this.writes.add(performance.now() - started)
      this.operations++
      this.model.acknowledged(key, to, expiry)
      return true
    } catch (error) {
      if (error instanceof RecordError && error.result === ResultCode.DEVICE_OVERLOAD) {
        this.overloads++
        await sleep(OVERLOAD_PAUSE_MS)
        return false
      }
      if (!(error instanceof RecordError) || error.inDoubt || this.forgiving) this.model.unanswered(key, to)
      this.#failed(what, key, error)
      return true
    }
  }

  #failed (what: string, key: number, error: unknown): void {
    if (this.forgiving) return
    this.find(`${what} of record ${key}: ${error instanceof Error ? error.message : String(error)}`)
  }
}
