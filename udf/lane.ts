// The UDF lane: batches of tasks from the engine, batches of results to it. Little endian; bin values are wire particles.
//
// tasks: u32 count, then tasks
//    0 u32 bytes of this task   4 u32 time limit ms   8 u64 task id   16 u64 last-update time (ms since 2010)
//   24 u32 void time (0 never)  28 u32 ttl seconds (0xFFFFFFFF never)  32 u16 generation
//   34 u8 flags: 1 record exists, 2 has key          35 u8 set name length
//   36 u32 stored size          40 u16 bins          42 u8 module name length   43 u8 function name length
//   44 u32 argument bytes       48 u32 key bytes (type byte + value)   52 [20] digest   72 u8 namespace length
//   73 u8 kind: 0 a call on a record, 1 a chunk of a stream, 2 partial results of a stream   74 u8 1: and what follows the first reduce
//   75 u8 zero   76 namespace, set, key, module, function, arguments (msgpack list), then bins:
//      u8 name length, u8 particle type, u16 zero, u32 value length, name, value
//   A chunk has records in place of bins, each laid out as a task without id, namespace, module, function and arguments; partial
//   results are bins without names. Their count is in 40.
//
// results: u32 count, then results
//    0 u32 bytes of this result  4 u8 status: 0 success, 1 failure     5 u8 action: 0 none, 1 write, 2 remove
//    6 u8 ttl action: 0 of the request, 1 set, 2 never, 3 unchanged            7 u8 flags: 1 drop key, 2 the stream is reduced
//    8 u64 task id               16 u32 ttl seconds  20 u16 changed bins 22 u8 particle type of the return value
//   23 u8 result code on failure (0: 100)            24 u32 return bytes 28 u32 microseconds that a stream's task took
//   32 return value (on failure: UTF-8 message), then changed bins as above (particle type 0 deletes the bin)
//   A stream's task returns nothing; its values are bins without names.

import { ByteWriter } from './byte-writer.js'
import { shortUtf8 } from './short-text.js'

const COUNT_BYTES = 4
const DIGEST_BYTES = 20

const TASK_TIME_LIMIT = 4
const TASK_ID = 8
const TASK_LAST_UPDATE_TIME = 16
const TASK_VOID_TIME = 24
const TASK_TTL = 28
const TASK_GENERATION = 32
const TASK_FLAGS = 34
const TASK_SET_LENGTH = 35
const TASK_STORED_SIZE = 36
const TASK_BINS = 40
const TASK_MODULE_LENGTH = 42
const TASK_FUNCTION_LENGTH = 43
const TASK_ARGUMENT_BYTES = 44
const TASK_KEY_BYTES = 48
const TASK_DIGEST = 52
const TASK_NAMESPACE_LENGTH = TASK_DIGEST + DIGEST_BYTES
const TASK_KIND = TASK_NAMESPACE_LENGTH + 1
const TASK_STAGE = TASK_KIND + 1
const TASK_HEADER_BYTES = TASK_NAMESPACE_LENGTH + 4

const FLAG_EXISTS = 1
const FLAG_HAS_KEY = 2

const RESULT_STATUS = 4
const RESULT_ACTION = 5
const RESULT_TTL_ACTION = 6
const RESULT_FLAGS = 7
const RESULT_ID = 8
const RESULT_TTL = 16
const RESULT_BINS = 20
const RESULT_TYPE = 22
const RESULT_CODE = 23
const RESULT_VALUE_BYTES = 24
const RESULT_MICROSECONDS = 28
const RESULT_HEADER_BYTES = 32

const FLAG_DROP_KEY = 1
const FLAG_REDUCED = 2

const BIN_HEADER_BYTES = 8

export const TTL_NEVER = 0xffffffff

/** What a task asks for. */
export const TaskKind = { RECORD: 0, CHUNK: 1, REDUCE: 2 } as const
export type TaskKind = (typeof TaskKind)[keyof typeof TaskKind]

/** What a stream's task is to do after its first reduce. */
const STAGE_FINAL = 1

export const Action = { NONE: 0, WRITE: 1, REMOVE: 2 } as const
export type Action = (typeof Action)[keyof typeof Action]

export const TtlAction = { DEFAULT: 0, SET: 1, NEVER: 2, UNCHANGED: 3 } as const
export type TtlAction = (typeof TtlAction)[keyof typeof TtlAction]

export const Status = { SUCCESS: 0, FAILURE: 1 } as const

const NO_ARGUMENTS = new Uint8Array(0)
/** Values of one stream's task; a record gives one at most, and a chunk has fewer records. */
const VALUES_MAX = 65535

/** The engine and this side disagree about the layout: a bug in one of them. */
export class LaneError extends Error {}

function text (bytes: Uint8Array, at: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString('utf8')
}

/** One task in a batch. The object is reused for the next one; its offsets point into the batch's buffer. */
export class Task {
  readonly bytes: Uint8Array
  readonly view: DataView
  /** Where the task starts in the buffer, and where it ends. */
  at = 0
  end = 0
  setAt = 0
  keyAt = 0
  moduleAt = 0
  functionAt = 0
  argumentsAt = 0
  binsAt = 0

  constructor (bytes: Uint8Array) {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** Points at the task that starts at `at`; `limit` is the end of the batch. */
  move (at: number, limit: number): void {
    const { view, bytes } = this
    if (at + TASK_HEADER_BYTES > limit) throw new LaneError(`a task starts at ${at} in a batch of ${limit} bytes`)
    const end = at + view.getUint32(at, true)
    this.at = at
    this.end = end
    this.setAt = at + TASK_HEADER_BYTES + bytes[at + TASK_NAMESPACE_LENGTH]!
    this.keyAt = this.setAt + bytes[at + TASK_SET_LENGTH]!
    this.moduleAt = this.keyAt + this.keyBytes
    this.functionAt = this.moduleAt + bytes[at + TASK_MODULE_LENGTH]!
    this.argumentsAt = this.functionAt + bytes[at + TASK_FUNCTION_LENGTH]!
    this.binsAt = this.argumentsAt + this.argumentBytes
    if (this.binsAt > end || end > limit) throw new LaneError(`a task at ${at} ends at ${end}, its bins start at ${this.binsAt}, the batch has ${limit} bytes`)
  }

  get timeLimitMs (): number {
    return this.view.getUint32(this.at + TASK_TIME_LIMIT, true)
  }

  get id (): bigint {
    return this.view.getBigUint64(this.at + TASK_ID, true)
  }

  /** The id as a number; the engine counts from 1, so it is exact. */
  get idNumber (): number {
    return this.view.getUint32(this.at + TASK_ID, true) + this.view.getUint32(this.at + TASK_ID + 4, true) * 4294967296
  }

  get lastUpdateTime (): bigint {
    return this.view.getBigUint64(this.at + TASK_LAST_UPDATE_TIME, true)
  }

  get voidTime (): number {
    return this.view.getUint32(this.at + TASK_VOID_TIME, true)
  }

  get ttlSeconds (): number {
    return this.view.getUint32(this.at + TASK_TTL, true)
  }

  get generation (): number {
    return this.view.getUint16(this.at + TASK_GENERATION, true)
  }

  get exists (): boolean {
    return (this.bytes[this.at + TASK_FLAGS]! & FLAG_EXISTS) !== 0
  }

  get hasKey (): boolean {
    return (this.bytes[this.at + TASK_FLAGS]! & FLAG_HAS_KEY) !== 0
  }

  get storedBytes (): number {
    return this.view.getUint32(this.at + TASK_STORED_SIZE, true)
  }

  get kind (): number {
    return this.bytes[this.at + TASK_KIND]!
  }

  /** Of a stream: what follows the first reduce is to be done too. */
  get isFinal (): boolean {
    return this.bytes[this.at + TASK_STAGE] === STAGE_FINAL
  }

  /** Bins of the record; of a stream, the records or values. */
  get binCount (): number {
    return this.view.getUint16(this.at + TASK_BINS, true)
  }

  get argumentBytes (): number {
    return this.view.getUint32(this.at + TASK_ARGUMENT_BYTES, true)
  }

  get keyBytes (): number {
    return this.view.getUint32(this.at + TASK_KEY_BYTES, true)
  }

  get digest (): Buffer {
    return Buffer.from(this.bytes.subarray(this.at + TASK_DIGEST, this.at + TASK_DIGEST + DIGEST_BYTES))
  }

  get namespace (): string {
    const at = this.at + TASK_HEADER_BYTES
    return text(this.bytes, at, this.setAt - at)
  }

  get set (): string {
    return text(this.bytes, this.setAt, this.keyAt - this.setAt)
  }

  get module (): string {
    return shortUtf8(this.bytes, this.moduleAt, this.functionAt - this.moduleAt)
  }

  get function (): string {
    return shortUtf8(this.bytes, this.functionAt, this.argumentsAt - this.functionAt)
  }

  /** Another one in the same buffer, to be moved by itself. */
  follower (): Task {
    return new Task(this.bytes)
  }

  /** Where the bin of a name (one character a byte) starts, or -1. */
  findBin (name: string): number {
    const { bytes, view, end } = this
    const length = name.length
    let at = this.binsAt
    search: for (let i = this.binCount; i > 0; i--) {
      if (at + BIN_HEADER_BYTES > end) throw new LaneError(`a bin starts at ${at} in a task that ends at ${end}`)
      const nameAt = at + BIN_HEADER_BYTES
      const next = nameAt + bytes[at]! + view.getUint32(at + 4, true)
      if (next > end) throw new LaneError(`a bin's value ends at ${next} in a task that ends at ${end}`)
      if (bytes[at] === length) {
        for (let j = 0; j < length; j++) {
          if (bytes[nameAt + j] !== name.charCodeAt(j)) {
            at = next
            continue search
          }
        }
        return at
      }
      at = next
    }
    return -1
  }

  binType (binAt: number): number {
    return this.bytes[binAt + 1]!
  }

  binValueAt (binAt: number): number {
    return binAt + BIN_HEADER_BYTES + this.bytes[binAt]!
  }

  binValueLength (binAt: number): number {
    return this.view.getUint32(binAt + 4, true)
  }

  /** Calls back for each bin: where its name and its value are. */
  eachBin (visit: (nameAt: number, nameLength: number, type: number, valueAt: number, valueLength: number) => void): void {
    const { bytes, view, end } = this
    let at = this.binsAt
    for (let i = this.binCount; i > 0; i--) {
      if (at + BIN_HEADER_BYTES > end) throw new LaneError(`a bin starts at ${at} in a task that ends at ${end}`)
      const nameAt = at + BIN_HEADER_BYTES
      const nameLength = bytes[at]!
      const valueAt = nameAt + nameLength
      const valueLength = view.getUint32(at + 4, true)
      if (valueAt + valueLength > end) throw new LaneError(`a bin's value ends at ${valueAt + valueLength} in a task that ends at ${end}`)
      visit(nameAt, nameLength, bytes[at + 1]!, valueAt, valueLength)
      at = valueAt + valueLength
    }
  }
}

/** Reads the batches that arrive in one buffer. */
export class TaskBatch {
  readonly #task: Task
  #remaining = 0
  #next = 0
  #limit = 0

  constructor (buffer: Uint8Array) {
    this.#task = new Task(buffer)
  }

  /** Starts on a batch of so many bytes and returns its count of tasks. */
  open (length: number): number {
    if (length < COUNT_BYTES || length > this.#task.bytes.length) throw new LaneError(`a batch of ${length} bytes`)
    this.#limit = length
    this.#next = COUNT_BYTES
    this.#remaining = this.#task.view.getUint32(0, true)
    return this.#remaining
  }

  /** The next task; valid until the next call. */
  next (): Task | null {
    if (this.#remaining === 0) return null
    this.#remaining--
    this.#task.move(this.#next, this.#limit)
    this.#next = this.#task.end
    return this.#task
  }
}

/** Writes one batch of results after another into one buffer that grows as needed. */
export class ResultBatch {
  readonly writer = new ByteWriter(64 * 1024)
  #count = 0
  #at = 0
  #bins = 0
  #binAt = 0

  reset (): void {
    this.writer.length = COUNT_BYTES
    this.#count = 0
  }

  get count (): number {
    return this.#count
  }

  /** The finished batch; valid until the next `reset`. */
  finish (): Uint8Array {
    this.writer.view.setUint32(0, this.#count, true)
    return this.writer.bytes.subarray(0, this.writer.length)
  }

  /** Starts the result of a task. The return value's bytes follow, then `returned`. */
  begin (task: Task): void {
    const at = this.writer.reserve(RESULT_HEADER_BYTES)
    const { view } = this.writer
    for (let i = at; i < at + RESULT_HEADER_BYTES; i += 4) view.setUint32(i, 0)
    view.setUint32(at + RESULT_ID, task.view.getUint32(task.at + TASK_ID))
    view.setUint32(at + RESULT_ID + 4, task.view.getUint32(task.at + TASK_ID + 4))
    this.#at = at
    this.#bins = 0
  }

  /** Takes back everything since `begin`, as when a value turns out not to encode. */
  cancel (): void {
    this.writer.length = this.#at
  }

  returned (particleType: number): void {
    const { view, length } = this.writer
    this.writer.bytes[this.#at + RESULT_TYPE] = particleType
    view.setUint32(this.#at + RESULT_VALUE_BYTES, length - this.#at - RESULT_HEADER_BYTES, true)
  }

  fail (code: number, message: string): void {
    this.writer.raw(Buffer.from(message, 'utf8'))
    this.returned(0)
    this.writer.bytes[this.#at + RESULT_STATUS] = Status.FAILURE
    this.writer.bytes[this.#at + RESULT_CODE] = code
  }

  change (action: Action, ttlAction: TtlAction, ttlSeconds: number, dropKey: boolean): void {
    const { bytes, view } = this.writer
    bytes[this.#at + RESULT_ACTION] = action
    bytes[this.#at + RESULT_TTL_ACTION] = ttlAction
    bytes[this.#at + RESULT_FLAGS] = dropKey ? FLAG_DROP_KEY : 0
    view.setUint32(this.#at + RESULT_TTL, ttlSeconds, true)
  }

  /** Starts a changed bin, whose name has one character a byte: its value's bytes follow, then `endBin`. */
  beginBin (name: string): void {
    const { length } = name
    const at = this.#binAt = this.writer.reserve(BIN_HEADER_BYTES + length)
    const { bytes, view } = this.writer
    view.setUint32(at, length, true)
    view.setUint32(at + 4, 0)
    for (let i = 0; i < length; i++) bytes[at + BIN_HEADER_BYTES + i] = name.charCodeAt(i)
  }

  endBin (particleType: number): void {
    const { bytes, view, length } = this.writer
    const nameLength = bytes[this.#binAt]!
    bytes[this.#binAt + 1] = particleType
    view.setUint32(this.#binAt + 4, length - this.#binAt - BIN_HEADER_BYTES - nameLength, true)
    this.#bins++
  }

  /** Appends a value of a stream: its bytes follow, then `endBin`. */
  beginValue (): void {
    if (this.#bins === VALUES_MAX) throw new LaneError(`more than ${VALUES_MAX} values of one task`)
    this.beginBin('')
  }

  /** Says how a stream's task went, and whether its values go into a reduce. */
  stream (isReduced: boolean, microseconds: number): void {
    this.writer.bytes[this.#at + RESULT_FLAGS] = isReduced ? FLAG_REDUCED : 0
    this.writer.view.setUint32(this.#at + RESULT_MICROSECONDS, Math.min(microseconds, 0xffffffff), true)
  }

  /** Bytes of the result so far. */
  get resultBytes (): number {
    return this.writer.length - this.#at
  }

  end (): void {
    const { view, length } = this.writer
    view.setUint16(this.#at + RESULT_BINS, this.#bins, true)
    view.setUint32(this.#at, length - this.#at, true)
    this.#count++
  }
}

// ---- the engine's side, in JavaScript: for tests, benchmarks and in-process use ----

export interface BinParticle {
  readonly name: string
  readonly type: number
  readonly value: Uint8Array
}

export interface TaskFields {
  readonly id: bigint
  readonly module: string
  readonly function: string
  /** A msgpack list. */
  readonly arguments: Uint8Array
  readonly timeLimitMs?: number
  readonly namespace?: string
  readonly set?: string
  /** Type byte and value. */
  readonly key?: Uint8Array
  readonly digest?: Uint8Array
  readonly exists?: boolean
  readonly generation?: number
  readonly lastUpdateTime?: bigint
  readonly voidTime?: number
  readonly ttlSeconds?: number
  readonly storedBytes?: number
  /** Of a stream's partial results: without names. */
  readonly bins?: readonly BinParticle[]
  readonly kind?: TaskKind
  readonly isFinal?: boolean
  /** Of a chunk, in place of bins. */
  readonly records?: ReadonlyArray<Partial<TaskFields>>
}

export function encodeTasks (tasks: readonly TaskFields[]): Uint8Array {
  const writer = new ByteWriter(4096)
  writer.view.setUint32(writer.reserve(COUNT_BYTES), tasks.length, true)
  for (const task of tasks) writeTask(writer, task)
  return writer.copyFrom(0)
}

function writeTask (writer: ByteWriter, task: Partial<TaskFields>): void {
  const names = [task.namespace ?? '', task.set ?? '', task.module ?? '', task.function ?? ''].map(name => Buffer.from(name, 'utf8'))
  const [namespace, set, module, fn] = names as [Buffer, Buffer, Buffer, Buffer]
  const key = task.key ?? new Uint8Array(0)
  const bins = task.bins ?? []
  const args = task.arguments ?? NO_ARGUMENTS
  const at = writer.reserve(TASK_HEADER_BYTES)
  const { bytes, view } = writer
  bytes.fill(0, at, at + TASK_HEADER_BYTES)
  view.setUint32(at + TASK_TIME_LIMIT, task.timeLimitMs ?? 0, true)
  view.setBigUint64(at + TASK_ID, task.id ?? 0n, true)
  view.setBigUint64(at + TASK_LAST_UPDATE_TIME, task.lastUpdateTime ?? 0n, true)
  view.setUint32(at + TASK_VOID_TIME, task.voidTime ?? 0, true)
  view.setUint32(at + TASK_TTL, task.ttlSeconds ?? TTL_NEVER, true)
  view.setUint16(at + TASK_GENERATION, task.generation ?? 0, true)
  bytes[at + TASK_FLAGS] = (task.exists ?? bins.length > 0 ? FLAG_EXISTS : 0) | (key.length > 0 ? FLAG_HAS_KEY : 0)
  bytes[at + TASK_SET_LENGTH] = set.length
  view.setUint32(at + TASK_STORED_SIZE, task.storedBytes ?? 0, true)
  view.setUint16(at + TASK_BINS, task.records?.length ?? bins.length, true)
  bytes[at + TASK_MODULE_LENGTH] = module.length
  bytes[at + TASK_FUNCTION_LENGTH] = fn.length
  view.setUint32(at + TASK_ARGUMENT_BYTES, args.length, true)
  view.setUint32(at + TASK_KEY_BYTES, key.length, true)
  bytes.set((task.digest ?? new Uint8Array(DIGEST_BYTES)).subarray(0, DIGEST_BYTES), at + TASK_DIGEST)
  bytes[at + TASK_NAMESPACE_LENGTH] = namespace.length
  bytes[at + TASK_KIND] = task.kind ?? TaskKind.RECORD
  bytes[at + TASK_STAGE] = task.isFinal === true ? STAGE_FINAL : 0
  for (const part of [namespace, set, key, module, fn, args]) writer.raw(part)
  for (const bin of bins) {
    const name = Buffer.from(bin.name, 'utf8')
    const binAt = writer.reserve(BIN_HEADER_BYTES)
    writer.bytes.fill(0, binAt, binAt + BIN_HEADER_BYTES)
    writer.bytes[binAt] = name.length
    writer.bytes[binAt + 1] = bin.type
    writer.view.setUint32(binAt + 4, bin.value.length, true)
    writer.raw(name)
    writer.raw(bin.value)
  }
  for (const record of task.records ?? []) writeTask(writer, record)
  writer.view.setUint32(at, writer.length - at, true)
}

export interface TaskResult {
  readonly id: bigint
  readonly success: boolean
  readonly action: number
  readonly ttlAction: number
  readonly ttlSeconds: number
  readonly dropKey: boolean
  /** Of a stream: its values go into a reduce. */
  readonly isReduced: boolean
  readonly type: number
  readonly value: Uint8Array
  /** On failure. */
  readonly message: string
  readonly code: number
  readonly bins: readonly BinParticle[]
}

export function decodeResults (batch: Uint8Array): TaskResult[] {
  const view = new DataView(batch.buffer, batch.byteOffset, batch.byteLength)
  const results: TaskResult[] = []
  let at = COUNT_BYTES
  for (let i = view.getUint32(0, true); i > 0; i--) {
    const end = at + view.getUint32(at, true)
    const success = batch[at + RESULT_STATUS] === Status.SUCCESS
    let next = at + RESULT_HEADER_BYTES + view.getUint32(at + RESULT_VALUE_BYTES, true)
    const value = batch.slice(at + RESULT_HEADER_BYTES, next)
    const bins: BinParticle[] = []
    for (let bin = view.getUint16(at + RESULT_BINS, true); bin > 0; bin--) {
      const nameAt = next + BIN_HEADER_BYTES
      const valueAt = nameAt + batch[next]!
      const valueEnd = valueAt + view.getUint32(next + 4, true)
      bins.push({ name: text(batch, nameAt, valueAt - nameAt), type: batch[next + 1]!, value: batch.slice(valueAt, valueEnd) })
      next = valueEnd
    }
    if (next !== end) throw new LaneError(`a result at ${at} ends at ${next}, its header says ${end}`)
    results.push({
      id: view.getBigUint64(at + RESULT_ID, true),
      success,
      action: batch[at + RESULT_ACTION]!,
      ttlAction: batch[at + RESULT_TTL_ACTION]!,
      ttlSeconds: view.getUint32(at + RESULT_TTL, true),
      dropKey: (batch[at + RESULT_FLAGS]! & FLAG_DROP_KEY) !== 0,
      isReduced: (batch[at + RESULT_FLAGS]! & FLAG_REDUCED) !== 0,
      type: batch[at + RESULT_TYPE]!,
      value,
      message: success ? '' : Buffer.from(value).toString('utf8'),
      code: batch[at + RESULT_CODE]!,
      bins
    })
    at = end
  }
  if (at !== batch.length) throw new LaneError(`${batch.length - at} bytes after the last result`)
  return results
}
