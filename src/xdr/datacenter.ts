import { LimitedLog, type Log } from '../../connectors/connector.js'
import { Limit } from '../engine/constants.js'
import { decodeBatch, encodeConfirmation, Outcome, type ChangeEntry } from './batch.js'
import type { XdrNative } from './native.js'
import { Verdict, type Settle, type ShipGroup, type Shipper } from './shipper.js'
import { TokenBucket } from './token-bucket.js'

/** Bounds of one datacenter. At a bound nothing more is taken; changes wait in the native queues, which have their own bound. */
export const DATACENTER_LIMITS = {
  takeRecordsMax: 2048,
  inFlightEntriesMax: 16384,
  inFlightBytesMax: 32 * 1024 * 1024,
  /** An entry that must be retried stays in flight this long at first, and up to `retryMsMax` while nothing else gets through either. */
  retryMsMin: 50,
  retryMsMax: 5000,
  drainMsMax: 11_000
}
export type DatacenterLimits = typeof DATACENTER_LIMITS

/** Room for the largest record and all that its frame adds. */
const TAKE_BYTES_MAX = Limit.RECORD_BYTES_MAX + 2 * 1024 * 1024
const THROUGHPUT_WINDOW_MS = 1000
const LATENCY_WEIGHT = 0.1

export interface ShippedNamespace {
  readonly name: string
  /** Records a second. */
  readonly maxThroughput: number
}

export interface DatacenterOptions {
  readonly name: string
  readonly namespaces: readonly ShippedNamespace[]
  readonly periodMs: number
  readonly native: XdrNative
  readonly shipper: (settle: Settle) => Shipper
  readonly log: Log
  readonly limits?: Partial<DatacenterLimits>
}

/** What this side counts for a namespace; the native side counts the rest. */
export interface ShipCounters {
  success: number
  abandoned: number
  retry_no_node: number
  retry_conn_reset: number
  retry_dest: number
  bytes_shipped: number
  throughput: number
}

/**
 * One datacenter: takes changes, hands them to its shipper, confirms what became of them. Since the native side never hands out a second
 * version of a record before the first is confirmed, versions of one record ship in order whatever route they take.
 */
export class Datacenter {
  readonly name: string
  readonly namespaces: readonly ShippedNamespace[]
  readonly #periodMs: number
  readonly #native: XdrNative
  readonly #shipper: Shipper
  readonly #log: Log
  readonly #faults: LimitedLog
  readonly #limits: DatacenterLimits
  readonly #buckets: readonly TokenBucket[]
  readonly #counters: readonly ShipCounters[]
  readonly #shippedBefore: number[]
  readonly #held = new Map<NodeJS.Timeout, ChangeEntry[]>()
  #state: 'open' | 'started' | 'drained' | 'closed' = 'open'
  #timer: NodeJS.Timeout | undefined
  #scheduled: NodeJS.Immediate | undefined
  #taking: Promise<void> | undefined
  #backlog = false
  #inFlightEntries = 0
  #inFlightBytes = 0
  #retryMs: number
  #retrySteppedMs = 0
  #windowStartMs = performance.now()
  #latencyMs = 0
  #lapUs = 0
  #onIdle: (() => void) | undefined

  constructor (options: DatacenterOptions) {
    this.name = options.name
    this.namespaces = options.namespaces
    this.#periodMs = options.periodMs
    this.#native = options.native
    this.#log = options.log
    this.#faults = new LimitedLog(options.log)
    this.#limits = { ...DATACENTER_LIMITS, ...options.limits }
    this.#retryMs = this.#limits.retryMsMin
    const now = performance.now()
    // Two periods' worth, so that a late timer costs no throughput.
    this.#buckets = options.namespaces.map(({ maxThroughput }) => new TokenBucket(maxThroughput, 2 * options.periodMs, now))
    this.#counters = options.namespaces.map(() =>
      ({ success: 0, abandoned: 0, retry_no_node: 0, retry_conn_reset: 0, retry_dest: 0, bytes_shipped: 0, throughput: 0 }))
    this.#shippedBefore = options.namespaces.map(() => 0)
    this.#shipper = options.shipper((group) => this.#settle(group))
  }

  get nodes (): number {
    return this.#shipper.nodes
  }

  get latencyMs (): number {
    return this.#latencyMs
  }

  get lapUs (): number {
    return this.#lapUs
  }

  counters (index: number): Readonly<ShipCounters> {
    return this.#counters[index]!
  }

  /** Does not wait for the destination: changes wait in the native queues until it is there. */
  start (): void {
    if (this.#state !== 'open') return
    this.#state = 'started'
    this.#shipper.open().catch((error: unknown) => {
      if (this.#state === 'started') this.#log.error({ dc: this.name, err: error }, 'xdr: the destination cannot be used')
    })
    this.#timer = setInterval(() => this.#lap(), this.#periodMs)
  }

  /** Takes no more, and waits for what is in flight as long as one request may take. */
  async drain (): Promise<void> {
    if (this.#state !== 'started') return
    this.#state = 'drained'
    clearInterval(this.#timer)
    clearImmediate(this.#scheduled)
    this.#releaseHeld()
    await this.#taking
    // Without a destination nothing would come of waiting.
    if (this.#inFlightEntries === 0 || this.#shipper.nodes === 0) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
      timer = setTimeout(resolve, this.#limits.drainMsMax)
    })
    clearTimeout(timer)
  }

  /** What is in flight goes back to the native queues. Idempotent. */
  async close (): Promise<void> {
    if (this.#state === 'closed') return
    clearInterval(this.#timer)
    clearImmediate(this.#scheduled)
    // Marked first, so that what the shipper returns is confirmed at once instead of being held back.
    this.#state = 'drained'
    await this.#taking
    await this.#shipper.close()
    this.#releaseHeld()
    this.#state = 'closed'
  }

  #lap (): void {
    this.#measure(performance.now())
    this.#schedule()
  }

  #schedule (): void {
    if (this.#state === 'started' && this.#taking === undefined) this.#scheduled ??= setImmediate(() => this.#take())
  }

  /** One batch at a time. While batches are full the next one follows as soon as the event loop has had its turn. */
  #take (): void {
    this.#scheduled = undefined
    const room = this.#room()
    if (room < 1) return
    const started = process.hrtime.bigint()
    this.#taking = this.#native.xdrTake(this.name, TAKE_BYTES_MAX, room).then((batch) => {
      const entries = decodeBatch(batch)
      // A batch can also end because the next record did not fit.
      this.#backlog = entries.length === room || batch.length > TAKE_BYTES_MAX / 2
      if (entries.length > 0) this.#ship(entries)
    }).catch((error: unknown) => {
      this.#backlog = false
      this.#faults.warn({ dc: this.name, err: error }, 'xdr: cannot take changes')
    }).then(() => {
      this.#taking = undefined
      this.#lapUs = Math.round(Number(process.hrtime.bigint() - started) / 1000)
      if (this.#backlog) this.#schedule()
    })
  }

  /**
   * Records that may be taken now. A batch cannot be limited to one namespace, so the namespace with the least left of its throughput limits it:
   * none ever exceeds its own, and one at its limit slows the others of the same datacenter.
   */
  #room (): number {
    if (this.#shipper.nodes === 0 || this.#inFlightBytes >= this.#limits.inFlightBytesMax) return 0
    const now = performance.now()
    let room = Math.min(this.#limits.takeRecordsMax, this.#limits.inFlightEntriesMax - this.#inFlightEntries)
    for (const bucket of this.#buckets) room = Math.min(room, bucket.available(now))
    return room
  }

  #ship (entries: ChangeEntry[]): void {
    this.#inFlightEntries += entries.length
    for (const entry of entries) this.#inFlightBytes += entry.frameBytes
    if (this.#state !== 'started') return this.#confirm(entries, () => Outcome.RETRY)
    try {
      for (const entry of entries) this.#buckets[entry.namespace]!.spend(1)
      this.#shipper.ship(entries)
    } catch (error) {
      // Nobody else will settle them, and a token that is never confirmed holds its record and its partition's last-ship time for ever.
      this.#faults.warn({ dc: this.name, changes: entries.length, err: error }, 'xdr: cannot hand changes over, trying again')
      for (const entry of entries) {
        const counters = this.#counters[entry.namespace]
        if (counters !== undefined) counters.retry_dest++
      }
      this.#slowDown(performance.now())
      this.#hold(entries)
    }
  }

  #settle (group: ShipGroup): void {
    const done: ChangeEntry[] = []
    const outcomes: Outcome[] = []
    const retries: ChangeEntry[] = []
    for (const [index, entry] of group.entries.entries()) {
      const counters = this.#counters[entry.namespace]!
      switch (group.verdicts[index]) {
        case Verdict.SHIPPED:
          counters.success++
          counters.bytes_shipped += entry.frameBytes
          done.push(entry)
          outcomes.push(Outcome.SUCCESS)
          continue
        case Verdict.ABANDONED:
          counters.abandoned++
          done.push(entry)
          outcomes.push(Outcome.ABANDON)
          continue
        case Verdict.RETRY_CONN_RESET: counters.retry_conn_reset++; break
        case Verdict.RETRY_NO_NODE: counters.retry_no_node++; break
        default: counters.retry_dest++
      }
      retries.push(entry)
    }
    const now = performance.now()
    if (done.length > 0) {
      this.#latencyMs += LATENCY_WEIGHT * (now - group.startedMs - this.#latencyMs)
      this.#retryMs = this.#limits.retryMsMin
      this.#confirm(done, (index) => outcomes[index]!)
    } else this.#slowDown(now)
    if (retries.length > 0) this.#hold(retries)
    if (this.#backlog) this.#schedule()
  }

  /** One step for all groups that fail together. */
  #slowDown (now: number): void {
    if (now - this.#retrySteppedMs < this.#retryMs) return
    this.#retryMs = Math.min(this.#retryMs * 2, this.#limits.retryMsMax)
    this.#retrySteppedMs = now
  }

  /** A retry is told to the native side only after a pause; told at once, it would be handed out again at once. */
  #hold (entries: ChangeEntry[]): void {
    if (this.#state !== 'started') return this.#confirm(entries, () => Outcome.RETRY)
    const timer = setTimeout(() => {
      this.#held.delete(timer)
      this.#confirm(entries, () => Outcome.RETRY)
    }, this.#retryMs)
    this.#held.set(timer, entries)
  }

  #releaseHeld (): void {
    for (const [timer, entries] of this.#held) {
      clearTimeout(timer)
      this.#confirm(entries, () => Outcome.RETRY)
    }
    this.#held.clear()
  }

  #confirm (entries: readonly ChangeEntry[], outcomeOf: (index: number) => Outcome): void {
    if (this.#state === 'closed') return // the native side may be gone; unconfirmed changes come again after the restart
    this.#inFlightEntries -= entries.length
    for (const entry of entries) this.#inFlightBytes -= entry.frameBytes
    this.#native.xdrConfirm(this.name, encodeConfirmation(entries, outcomeOf))
    if (this.#inFlightEntries === 0) this.#onIdle?.()
  }

  #measure (now: number): void {
    const elapsedMs = now - this.#windowStartMs
    if (elapsedMs < THROUGHPUT_WINDOW_MS) return
    for (const [index, counters] of this.#counters.entries()) {
      counters.throughput = Math.round((counters.success - this.#shippedBefore[index]!) * 1000 / elapsedMs)
      this.#shippedBefore[index] = counters.success
    }
    this.#windowStartMs = now
  }
}
