/**
 * What the native add-on offers, as docs/ARCHITECTURE.md describes it. Errors that it throws carry their code in front of the message; `EngineError`
 * takes it apart.
 */
export interface NativeAddon {
  NativeNode: { create (config: string): NativeNode }
  /** Sends native log events of `level` and above to `onLog`. Once a process; false when that was done before. */
  setLogger (level: string, onLog: (event: NativeLogEvent) => void): boolean
  /** For worker threads only: it blocks. */
  udfExchange (handle: number, worker: number, results: Uint8Array | null, tasks: Uint8Array, waitMs: number): number
}

export interface NativeLogEvent {
  level: 'error' | 'warn' | 'info' | 'debug' | 'trace'
  target: string
  message: string
  /** JSON of the other fields. */
  fields: string
}

export interface InfoRequest {
  id: number
  /** Commands, each ended by a newline. */
  text: string
  /** Address and port of the client. */
  peer: string
}

export interface Listening {
  address: string
  port: number
  /** Undefined without a port for TLS. */
  tlsPort?: number
  networkLoop: 'io_uring' | 'epoll'
}

/** One node's data plane. `create -> start -> open -> serve -> drain -> close`; closing twice is harmless. */
export interface NativeNode {
  readonly handle: number
  /** Makes this node master of the partitions whose bits are set (512 bytes, as in the `replicas` info command). Stale epochs are ignored. */
  setOwnership (epoch: number, namespace: string, masters: Uint8Array): void
  /** Binds the port and answers info requests. */
  start (onInfo: (request: InfoRequest) => void): Listening
  /** Opens the namespaces and rebuilds their indexes. */
  open (): Promise<void>
  /** Makes an `open` that is under way fail soon. */
  cancelOpen (): void
  /** Answers requests for records from now on. */
  serve (): void
  answerInfo (id: number, reply: string): void
  /** A truncation mark that parts what was acknowledged so far from all that will be (ms since 2010-01-01). */
  truncationTime (namespace: string): number
  /** Puts a truncation mark in force for a set, or for the namespace; 0 takes it away. */
  setTruncation (namespace: string, set: string | undefined, lut: number): void
  /** Puts a changed configuration of a namespace into force (JSON); only what may change at run time is taken. */
  configure (namespace: string, config: string): void
  /** Forgets how far eviction has come. */
  resetEviction (namespace: string): void
  /** Has the tomb raider begin a pass. */
  raidTombstones (namespace: string): void
  /**
   * Makes a secondary index of JSON of `IndexDefinition`; it is built in the background. The same definition under its name again has no effect.
   * PERIGEE_ARGUMENT for a malformed one, PERIGEE_EXISTS where another has the name, PERIGEE_LIMIT where a namespace has all that it may have.
   */
  createIndex (namespace: string, definition: string): void
  /** False: there was none. */
  dropIndex (namespace: string, name: string): boolean
  /** JSON of `IndexStatuses`. */
  indexes (): string
  /** JSON of `Histograms`; null for a set that is not known. */
  histograms (namespace: string, set?: string): Promise<string | null>
  /** JSON of `EngineStats`. */
  stats (): string
  /** JSON of `Latencies`. */
  latencies (): string
  drain (): Promise<void>
  close (): Promise<void>

  udfWake (): void
  udfOverdue (): Array<{ worker: number, overdueMs: number }>
  /** The worker is gone: the task that it was running fails (0: not known which), what else it held goes to other workers. */
  udfAbandon (worker: number, running: number): void

  /** JSON of `QueryListing[]`: every long query, or those of a task. */
  queries (task?: string): string
  /** Ends the long queries of a task, or all; how many. */
  abortQueries (task?: string): number

  xdrTake (dc: string, bytesMax: number, recordsMax: number): Promise<Buffer>
  xdrConfirm (dc: string, outcomes: Uint8Array): void
  xdrStats (dc: string): string
  xdrShipTimes (dc: string, namespace: string): Buffer
  xdrSetShipTimes (dc: string, namespace: string, times: Uint8Array): void
}

export type IndexKeyType = 'numeric' | 'string' | 'blob' | 'geo2dsphere'
/** What of a value is indexed: all of it, or its elements; of a set, its records whatever they hold. */
export type IndexType = 'default' | 'list' | 'mapkeys' | 'mapvalues' | 'set'

/** A secondary index: of a bin, of what an expression gives, or of a whole set. */
export interface IndexDefinition {
  name: string
  /** Absent: the records of all sets, and of none. */
  set?: string
  bin?: string
  /** Base64 of the msgpack of a path within the bin. */
  context?: string
  /** Base64 of msgpack. */
  expression?: string
  'index-type': IndexType
  'key-type': IndexKeyType
}

export interface IndexStatus {
  name: string
  set: string | null
  state: 'building' | 'ready'
  entries: number
  /** This and the averages that follow are as of the last pass of collection. */
  'used-bytes': number
  'entries-per-bval': number
  'entries-per-rec': number
  /** Of the records that there were when building began. */
  'load-pct': number
  'load-time-ms': number
  /** Entries removed after their records had gone. */
  'gc-records': number
}

/** By namespace. */
export type IndexStatuses = Record<string, IndexStatus[]>

/** A long query that runs, or has run. */
export interface QueryListing {
  /** 64 bits, in decimal digits. */
  task: string
  /** Whether it sends records, or changes them with operations or a function in the background. */
  'job-type': 'basic' | 'aggr' | 'ops-bg' | 'udf-bg'
  namespace: string
  /** Empty for all sets. */
  set: string
  /** Empty unless it asks for a range of a secondary index. */
  index: string
  /** Address and port of the client. */
  peer: string
  partitions: number
  'partitions-done': number
  'records-per-second': number
  'socket-timeout-ms': number
  /** Sent, or changed. */
  records: number
  /** Found, and not changed since they did not match any more. */
  filtered: number
  failed: number
  throttled: number
  bytes: number
  'run-time-ms': number
  /** How it ended; null while it runs. */
  done: string | null
  'since-done-ms': number
}

/** Bucket i counts values from `i * bucket-width` on. */
export interface LinearHistogram { 'bucket-width': number, buckets: number[] }

/** Of records that clients can see. */
export interface Histograms {
  /** Seconds to live, of records that expire. */
  ttl: LinearHistogram
  /** Stored bytes. */
  'object-size-linear': LinearHistogram
  /** Stored bytes: entry i counts sizes from 2^i to below 2^(i+1). */
  'object-size': number[]
}

/** How long requests took since the start. */
export interface Latencies {
  /** Microseconds from which each bucket counts. */
  'floors-us': number[]
  /** Buckets of the histograms that belong to no namespace. */
  service: Record<string, number[]>
  namespaces: Record<string, Record<string, number[]>>
}

export type Statistic = number | string | boolean

/** How far opening a namespace has come. */
export interface OpenProgress {
  open_phase: 'waiting' | 'cold' | 'warm' | 'ready'
  open_pct: number
  /** Versions of records seen so far. */
  open_records: number
  /** Null while nothing was read. */
  open_remaining_seconds: number | null
}

export interface EngineStats {
  service: Record<string, Statistic>
  opening: Record<string, OpenProgress>
  /** `storage` is an object of the store's own counters; everything else is a plain statistic. */
  namespaces: Record<string, Record<string, Statistic | Record<string, Statistic>>>
  sets: Record<string, Record<string, { objects: number, tombstones: number, data_used_bytes: number, truncate_lut: number, truncating: boolean }>>
}
