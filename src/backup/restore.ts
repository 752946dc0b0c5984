// A restore: readers take files in turn and keep a number of writes under way each. A record is written by its digest, with the policy that was asked for;
// what may pass is tried again with growing pauses, and a write whose fate is unknown is repeated, since every policy here makes that harmless.

import { createReadStream } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { EPOCH_UNIX_SECONDS, FieldId, Info2, Info3, OpCode, ParticleType, ResultCode, Ttl } from '../engine/constants.js'
import type { Client } from '../client/client.js'
import { partitionOf } from '../client/digest.js'
import { ClientCode, RecordError, resultName } from '../client/errors.js'
import { infoError } from '../client/info.js'
import { encodeRequest, type Field, type RequestOp } from '../client/message.js'
import type { WireBin } from '../client/query-frame.js'
import { TokenBucket } from '../xdr/token-bucket.js'
import { createCommand, parseIndexLine } from './asb-index.js'
import { AsbReader, type AsbItem } from './asb-reader.js'
import type { FilePlace, RestoreState } from './restore-state.js'

export interface RestorePolicy {
  /** Only what is not there yet. */
  readonly unique: boolean
  /** Bins that the backup does not have go away. */
  readonly replace: boolean
  /** Also over a record of the same or a higher generation. */
  readonly noGeneration: boolean
}

export interface RestoreOptions {
  /** The namespace that the backup is of, if it must be a certain one, and the one to write to, if another. */
  readonly from: string | undefined
  readonly to: string | undefined
  /** Empty for all. */
  readonly sets: ReadonlySet<string>
  /** Empty for all. */
  readonly bins: ReadonlySet<string>
  readonly records: boolean
  readonly udfs: boolean
  readonly indexes: boolean
  readonly policy: RestorePolicy
  /** Goes on after a record that is refused. */
  readonly ignoreRecordErrors: boolean
  /** Seconds added to the life of records that have one. */
  readonly extraTtl: number
  readonly parallel: number
  readonly recordsPerSecond: number
  /** Bound on one attempt of a write. */
  readonly timeoutMs: number
  /** A write that could pass is tried for so long. */
  readonly patienceMs: number
  readonly signal: AbortSignal
  readonly onProgress: (records: number, bytes: number) => void
  readonly onWarning: (text: string) => void
  /** Saves the state; called now and then. */
  readonly save: () => Promise<void>
}

/** A file, by the name that messages and the state call it. */
export interface RestoreSource {
  readonly name: string
  /** undefined for one that can be read only once. */
  readonly path: string | undefined
  readonly stream?: AsyncIterable<Buffer>
}

/** Writes under way of one reader. */
const WINDOW = 64
const SAVE_EVERY_MS = 1000
const RETRY_MS_MIN = 5
const RETRY_MS_MAX = 1000
const BURST_MS = 100
/** Warnings about single records; the rest is counted. */
const WARNINGS_MAX = 20
const PARTICLE_HEAD = 1
/** Modules and indexes take longer than a record. */
const GLOBAL_TIMEOUT_MS_MIN = 10_000
const MODULE_NAME = /^[^;:=/\\\s]+$/

/** Answers after which the same write may succeed. */
const PASSING: ReadonlySet<number> = new Set([
  ResultCode.TIMEOUT, ResultCode.DEVICE_OVERLOAD, ResultCode.KEY_BUSY, ResultCode.UNAVAILABLE,
  ClientCode.CONNECTION, ClientCode.NO_NODE, ClientCode.QUEUE_FULL
])

/** A record that was refused. */
export class RestoreError extends Error {
  readonly code = 'RESTORE'
}

type Outcome = 'inserted' | 'existed' | 'fresher' | 'expired' | 'skipped' | 'tooBig' | 'errors'

export class Restore {
  readonly #client: Client
  readonly #state: RestoreState
  readonly #options: RestoreOptions
  readonly #bucket: TokenBucket | undefined
  readonly #failed = new AbortController()
  #failure: Error | undefined
  #warnings = 0
  #bytes = 0
  #savedAt = 0
  #saving: Promise<void> | undefined

  constructor (client: Client, state: RestoreState, options: RestoreOptions) {
    this.#client = client
    this.#state = state
    this.#options = options
    if (options.recordsPerSecond > 0) this.#bucket = new TokenBucket(options.recordsPerSecond, BURST_MS, performance.now())
  }

  /** True when every file was restored to its end, false when it was told to stop. Rejects with an AsbError, a {@link RestoreError} or a RecordError. */
  async run (sources: readonly RestoreSource[]): Promise<boolean> {
    const queue = [...sources]
    const work = async (): Promise<void> => {
      for (let source = queue.shift(); source !== undefined && !this.#isEnded; source = queue.shift()) await this.#file(source)
    }
    const results = await Promise.allSettled(Array.from({ length: Math.max(1, this.#options.parallel) }, async () => {
      try {
        await work()
      } catch (error) {
        this.#fail(error as Error)
      }
    }))
    await this.#saving
    const unexpected = results.find((result) => result.status === 'rejected')
    if (unexpected !== undefined) throw unexpected.reason
    if (this.#failure !== undefined) throw this.#failure
    return !this.#options.signal.aborted
  }

  get #isEnded (): boolean {
    return this.#failed.signal.aborted || this.#options.signal.aborted
  }

  #fail (error: Error): void {
    this.#failure ??= error
    this.#failed.abort()
  }

  async #file (source: RestoreSource): Promise<void> {
    const known = this.#state.files[source.name]
    if (known?.done === true) return
    const start = known === undefined || known.offset === 0 ? undefined : known
    const reader = new AsbReader(source.name)
    const input = source.stream ?? createReadStream(source.path!, { highWaterMark: 1 << 20, start: start?.offset ?? 0 }) as AsyncIterable<Buffer>
    const window = new Window(WINDOW)
    let last: FilePlace | undefined
    // Everything before the oldest record under way was answered. Without any, the last one is written once more.
    const note = (): void => {
      const place = window.lowest ?? last
      if (source.path !== undefined && place !== undefined) this.#state.files[source.name] = { offset: place.offset, line: place.line, done: false }
    }
    try {
      for await (const items of reader.items(input, start)) {
        for (const item of items) {
          if (this.#isEnded) return
          await window.room()
          last = { offset: item.place.offset, line: item.place.line, done: false }
          window.add(last, this.#item(item, source.name))
          // As close as can be: a restore that goes on counts what lies behind it once more.
          note()
        }
        this.#bytes += (items.at(-1)?.place.end ?? 0) - (items[0]?.place.offset ?? 0)
        this.#options.onProgress(this.#state.counts.read, this.#bytes)
        this.#saveNowAndThen()
      }
      await window.empty()
      if (!this.#isEnded && source.path !== undefined) this.#state.files[source.name] = { offset: 0, line: 1, done: true }
    } finally {
      await window.empty()
      if (this.#state.files[source.name]?.done !== true) note()
    }
  }

  #saveNowAndThen (): void {
    if (this.#saving !== undefined || performance.now() - this.#savedAt < SAVE_EVERY_MS) return
    this.#savedAt = performance.now()
    this.#saving = this.#options.save().catch((error: Error) => this.#fail(error)).finally(() => { this.#saving = undefined })
  }

  /** Resolves whatever becomes of it: a failure that ends the restore is noted. */
  async #item (item: AsbItem, file: string): Promise<boolean> {
    try {
      if (item.kind === 'record') {
        const outcome = await this.#record(item, file)
        this.#state.counts.read++
        this.#state.counts[outcome]++
      } else if (item.kind === 'module') {
        await this.#module(item)
      } else {
        await this.#index(item, file)
      }
      return true
    } catch (error) {
      if (!this.#isEnded) this.#fail(error as Error)
      return false
    }
  }

  async #module ({ name, content }: Extract<AsbItem, { kind: 'module' }>): Promise<void> {
    if (!this.#options.udfs) return
    // It becomes a part of a command of text.
    if (!MODULE_NAME.test(name)) throw new RestoreError(`${JSON.stringify(name)} is not the name of a module`)
    const base64 = content.toString('base64')
    const command = `udf-put:filename=${name};content=${base64};content-len=${base64.length};udf-type=LUA;`
    const error = infoError('udf-put', await this.#client.info(command, { timeoutMs: Math.max(this.#options.timeoutMs, GLOBAL_TIMEOUT_MS_MIN) }))
    if (error !== undefined) throw new RestoreError(`module ${name}: ${error.message}`)
    this.#state.counts.modules++
  }

  /** One that is refused is named and counted: the records are worth having without it. */
  async #index ({ text, place }: Extract<AsbItem, { kind: 'index' }>, file: string): Promise<void> {
    if (!this.#options.indexes) return
    const refused = await this.#createIndex(text)
    if (refused === undefined) {
      this.#state.counts.indexes++
      return
    }
    this.#state.counts.indexesRefused++
    this.#options.onWarning(`${file}:${place.line}: the secondary index is not created, ${refused}: ${text}`)
  }

  /** Why not, or undefined when it is done. */
  async #createIndex (text: string): Promise<string | undefined> {
    const { from, to, timeoutMs } = this.#options
    const index = parseIndexLine(text)
    if (index === undefined) return 'it is of no known form'
    if (from !== undefined && index.namespace !== from) throw new RestoreError(`an index of namespace ${index.namespace}, not ${from}`)
    const command = createCommand({ ...index, namespace: to ?? index.namespace })
    if (command === undefined) return 'its name cannot be one here'
    return infoError('sindex-create', await this.#client.info(command, { timeoutMs: Math.max(timeoutMs, GLOBAL_TIMEOUT_MS_MIN) }))?.message
  }

  async #record (item: Extract<AsbItem, { kind: 'record' }>, file: string): Promise<Outcome> {
    const { record, namespace, place } = item
    const { from, to, sets, bins: wanted, policy, extraTtl, patienceMs } = this.#options
    const where = `${file}:${place.line}`
    const named = Buffer.from(namespace, 'latin1').toString('utf8')
    if (from !== undefined && named !== from) throw new RestoreError(`${where}: a record of namespace ${named}, not ${from}`)
    if (!this.#options.records) return 'skipped'
    if (sets.size > 0 && !sets.has(Buffer.from(record.set, 'latin1').toString('utf8'))) return 'skipped'
    const bins = record.bins.filter(({ name, type }) => type !== ParticleType.NULL && (wanted.size === 0 || wanted.has(Buffer.from(name, 'latin1').toString('utf8'))))
    if (bins.length === 0) return 'skipped'
    if (this.#bucket !== undefined) await this.#pace(this.#bucket)

    const target = to ?? named
    const deadline = performance.now() + patienceMs
    let inDoubt = false
    for (let attempt = 0; ; attempt++) {
      // The time that is left is counted anew for each attempt.
      const ttl = ttlOf(record.voidTime, extraTtl)
      if (ttl === undefined) return 'expired'
      const frame = encodeRecord(target, item, bins, ttl, policy, this.#options.timeoutMs)
      let result: number
      let reason: string | undefined
      try {
        result = (await this.#client.send(target, partitionOf(record.digest), frame, this.#options.timeoutMs)).result
      } catch (error) {
        if (!(error instanceof RecordError)) throw error
        result = error.result
        reason = error.message
        inDoubt ||= error.inDoubt
      }
      if (PASSING.has(result)) {
        if (this.#isEnded) throw new RestoreError('ended')
        if (performance.now() < deadline) {
          this.#state.counts.retries++
          await sleep(Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempt) * (0.5 + Math.random() / 2))
          continue
        }
        throw new RestoreError(`${where}: ${reason ?? resultName(result)}, for ${Math.round(patienceMs / 1000)} s`)
      }
      switch (result) {
        case ResultCode.OK: return 'inserted'
        // An earlier attempt, of which nothing was heard, may have written it.
        case ResultCode.RECORD_EXISTS: return inDoubt ? 'inserted' : 'existed'
        case ResultCode.GENERATION: return inDoubt ? 'inserted' : 'fresher'
        case ResultCode.RECORD_TOO_BIG:
          this.#warn(`${where}: record ${record.digest.toString('hex')} is larger than the server takes`)
          return 'tooBig'
        default: {
          const hint = result === ResultCode.FORBIDDEN && record.voidTime !== 0 ? '; records with a time to live need nsup-period or allow-ttl-without-nsup in the namespace' : ''
          const text = `${where}: record ${record.digest.toString('hex')} is refused: ${reason ?? resultName(result)}${hint}`
          if (!this.#options.ignoreRecordErrors) throw new RestoreError(text)
          this.#warn(text)
          return 'errors'
        }
      }
    }
  }

  #warn (text: string): void {
    this.#warnings++
    if (this.#warnings <= WARNINGS_MAX) this.#options.onWarning(text)
    else if (this.#warnings === WARNINGS_MAX + 1) this.#options.onWarning('further records that are refused are counted only')
  }

  async #pace (bucket: TokenBucket): Promise<void> {
    while (bucket.available(performance.now()) < 1 && !this.#isEnded) await sleep(10)
    bucket.spend(1)
  }
}

/** Items under way of one file, oldest first. */
class Window {
  readonly #size: number
  readonly #places = new Map<number, { offset: number, line: number }>()
  readonly #running = new Set<Promise<unknown>>()
  #next = 0
  #wake: (() => void) | undefined

  constructor (size: number) {
    this.#size = size
  }

  /** Where the oldest item begins that is not done; one that failed never is. */
  get lowest (): { offset: number, line: number } | undefined {
    const [lowest] = this.#places.values()
    return lowest
  }

  /** Resolves when there is room for one more. */
  async room (): Promise<void> {
    while (this.#running.size >= this.#size) await new Promise<void>((resolve) => { this.#wake = resolve })
  }

  add (place: { offset: number, line: number }, work: Promise<boolean>): void {
    const number = this.#next++
    this.#places.set(number, place)
    const running = work.then((done) => {
      this.#running.delete(running)
      if (done) this.#places.delete(number)
      this.#wake?.()
    })
    this.#running.add(running)
  }

  async empty (): Promise<void> {
    await Promise.all(this.#running)
  }
}

/** Seconds to live, or undefined when there are none left. */
function ttlOf (voidTime: number, extraTtl: number): number | undefined {
  if (voidTime === 0) return Ttl.NEVER
  const left = voidTime + extraTtl - (Math.floor(Date.now() / 1000) - EPOCH_UNIX_SECONDS)
  return left > 0 ? Math.min(left, Ttl.TTL_SECONDS_MAX) : undefined
}

function encodeRecord (namespace: string, { record }: Extract<AsbItem, { kind: 'record' }>, bins: readonly WireBin[], ttl: number, policy: RestorePolicy, timeoutMs: number): Buffer {
  const fields: Field[] = [{ id: FieldId.NAMESPACE, data: Buffer.from(namespace) }]
  if (record.set !== '') fields.push({ id: FieldId.SET, data: Buffer.from(record.set, 'latin1') })
  fields.push({ id: FieldId.DIGEST, data: record.digest })
  if (record.key !== undefined && record.key.length >= PARTICLE_HEAD) fields.push({ id: FieldId.KEY, data: record.key })
  const checksGeneration = !policy.unique && !policy.noGeneration
  return encodeRequest({
    info2: Info2.WRITE | (policy.unique ? Info2.CREATE_ONLY : 0) | (checksGeneration ? Info2.GENERATION_GT : 0),
    info3: policy.replace ? Info3.CREATE_OR_REPLACE : 0,
    generation: checksGeneration ? record.generation : 0,
    ttl,
    timeoutMs,
    fields,
    ops: bins.map(({ name, type, value }): RequestOp => ({ op: OpCode.WRITE, name: Buffer.from(name, 'latin1'), type, value }))
  })
}
