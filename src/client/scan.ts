// Reads the records of a namespace or a set, partition by partition, from the nodes that own them. Every node has a connection of its own, read no faster
// than the caller takes the records. What fails on the way is asked for again behind the last record that came, from whoever owns the partition then.

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Limit, ResultCode } from '../engine/constants.js'
import { answerFrames } from './answer-frames.js'
import type { Cluster, ClusterNode } from './cluster.js'
import { partitionOf } from './digest.js'
import { ClientCode, RecordError } from './errors.js'
import { FrameError } from './message.js'
import { encodeQuery, readQueryFrame, type WireRecord } from './query-frame.js'

export interface ScanOptions {
  /** Only this set. */
  readonly set?: string | undefined
  /** Only these bins of each record; empty for all. */
  readonly bins?: readonly string[] | undefined
  /** Digest, set, key, generation and void time alone. */
  readonly noBins?: boolean | undefined
  /** Which partitions, each with the digest to resume behind; without it all, from their start. */
  readonly partitions?: ReadonlyMap<number, Buffer | undefined> | undefined
  readonly recordsMax?: number | undefined
  /** Of all nodes together. */
  readonly recordsPerSecond?: number | undefined
  /** A node that sends nothing for so long is asked again; nor does one wait longer than this for us to take its records. */
  readonly socketTimeoutMs?: number | undefined
  /** Give up when nothing has come for so long, however often it was tried. */
  readonly patienceMs?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** Told of what is tried again. */
  readonly onRetry?: ((error: RecordError) => void) | undefined
}

/** What came together: records, and the partitions that are complete with them. */
export interface ScanPage {
  readonly records: readonly WireRecord[]
  readonly done: readonly number[]
}

const SOCKET_TIMEOUT_MS = 30_000
const PATIENCE_MS = 10_000
const RETRY_MS_MIN = 20
const RETRY_MS_MAX = 1000

/** Where a scan is: the partitions that are not done, each with the digest of the last record that came of it. */
class Progress {
  readonly open: Map<number, Buffer | undefined>
  left: number

  constructor (options: ScanOptions) {
    this.open = new Map(options.partitions ?? Array.from({ length: Limit.PARTITIONS }, (_, partition) => [partition, undefined]))
    for (const [partition, after] of this.open) {
      if (!Number.isInteger(partition) || partition < 0 || partition >= Limit.PARTITIONS) throw new RangeError(`there is no partition ${partition}`)
      if (after !== undefined && partitionOf(after) !== partition) throw new RangeError(`${after.toString('hex')} is no digest of partition ${partition}`)
    }
    this.left = options.recordsMax ?? Infinity
  }

  get isDone (): boolean {
    return this.open.size === 0 || this.left <= 0
  }
}

/** Pages as they come. Ends when every partition is done, or `recordsMax` records are sent. Rejects with a {@link RecordError}. */
export async function * scanPages (cluster: Cluster, namespace: string, options: ScanOptions, connectTimeoutMs: number): AsyncGenerator<ScanPage, void> {
  const progress = new Progress(options)
  const patienceMs = options.patienceMs ?? PATIENCE_MS
  let heardAt = performance.now()
  for (let attempt = 0; !progress.isDone; attempt++) {
    options.signal?.throwIfAborted()
    let failure: RecordError | undefined
    const failed = (error: RecordError): void => {
      if (!error.retriable) throw error
      failure = error
      options.onRetry?.(error)
    }
    const nodes = byOwner(cluster, namespace, progress.open)
    if (nodes.size === 0) failure = new RecordError(ClientCode.NO_NODE, `no node is known for the partitions of ${namespace}`, false)
    for await (const page of merged(nodes, (node, partitions, signal) => nodePages(node, partitions, progress, nodes.size, { ...options, namespace, connectTimeoutMs, signal }), failed, options.signal)) {
      heardAt = performance.now()
      attempt = 0
      yield page
      // The caller's time does not count.
      heardAt = performance.now()
    }
    if (progress.isDone) return
    failure ??= new RecordError(ResultCode.UNAVAILABLE, `${progress.open.size} partitions of ${namespace} have no owner at present`)
    if (performance.now() - heardAt >= patienceMs) throw failure
    cluster.suspect()
    await sleep(Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempt), undefined, options.signal === undefined ? {} : { signal: options.signal })
  }
}

function byOwner (cluster: Cluster, namespace: string, open: ReadonlyMap<number, Buffer | undefined>): Map<ClusterNode, Map<number, Buffer | undefined>> {
  const nodes = new Map<ClusterNode, Map<number, Buffer | undefined>>()
  for (const [partition, after] of open) {
    const owner = cluster.owner(namespace, partition)
    if (owner === undefined) continue
    const theirs = nodes.get(owner) ?? new Map<number, Buffer | undefined>()
    theirs.set(partition, after)
    nodes.set(owner, theirs)
  }
  return nodes
}

type Pages = AsyncGenerator<ScanPage, void>

/** The pages of all nodes as they come, one ahead a node. A node that fails is told to `failed`, which may throw to end them all. */
async function * merged<Part> (
  parts: ReadonlyMap<ClusterNode, Part>, open: (node: ClusterNode, part: Part, signal: AbortSignal) => Pages, failed: (error: RecordError) => void,
  outer: AbortSignal | undefined
): Pages {
  const abort = new AbortController()
  const signal = outer === undefined ? abort.signal : AbortSignal.any([abort.signal, outer])
  const arrived: Array<() => { pages: Pages, page: ScanPage } | undefined> = []
  let wake: (() => void) | undefined
  const arrive = (take: typeof arrived[number]): void => {
    arrived.push(take)
    wake?.()
  }
  const pull = (pages: Pages): void => {
    pages.next().then(
      ({ done, value }) => arrive(() => done === true ? undefined : { pages, page: value }),
      (error: unknown) => arrive(() => {
        if (!(error instanceof RecordError)) throw error
        failed(error)
        return undefined
      })
    )
  }
  try {
    for (const [node, part] of parts) pull(open(node, part, signal))
    for (let running = parts.size; running > 0;) {
      const take = arrived.shift()
      if (take === undefined) {
        await new Promise<void>((resolve) => { wake = resolve })
        wake = undefined
        continue
      }
      const next = take()
      if (next === undefined) {
        running--
      } else {
        yield next.page
        pull(next.pages)
      }
    }
  } finally {
    abort.abort()
  }
}

interface NodeScan extends ScanOptions {
  readonly namespace: string
  readonly connectTimeoutMs: number
}

/** Asks one node for its partitions. Ends when it has answered; what it could not finish stays open. */
async function * nodePages (node: ClusterNode, partitions: ReadonlyMap<number, Buffer | undefined>, progress: Progress, nodes: number, scan: NodeScan): Pages {
  const socketTimeoutMs = scan.socketTimeoutMs ?? SOCKET_TIMEOUT_MS
  const frame = encodeQuery({
    namespace: scan.namespace,
    set: scan.set ?? '',
    bins: scan.bins ?? [],
    noBins: scan.noBins ?? false,
    partitions,
    recordsMax: Number.isFinite(progress.left) ? progress.left : 0,
    recordsPerSecond: Math.ceil((scan.recordsPerSecond ?? 0) / nodes),
    socketTimeoutMs,
    task: randomBytes(8).readBigUInt64BE()
  })
  let answered = false
  for await (const answer of answerFrames({ ...scan, host: node.host, port: node.port, tls: node.tls, socketTimeoutMs }, frame)) {
    const records: WireRecord[] = []
    const done: number[] = []
    let result: number = ResultCode.OK
    try {
      readQueryFrame(answer, {
        record: (record) => {
          const partition = partitionOf(record.digest)
          if (!partitions.has(partition)) throw new FrameError(`a record of partition ${partition}, which was not asked for`)
          // Several nodes together may send more than was asked for.
          if (progress.left <= 0) return
          progress.left--
          progress.open.set(partition, record.digest)
          records.push(record)
        },
        partitionDone: (partition, code) => {
          if (code !== ResultCode.OK || progress.left <= 0 || !progress.open.delete(partition)) return
          done.push(partition)
        },
        last: (code) => {
          answered = true
          result = code
        }
      })
    } catch (error) {
      throw new RecordError(ClientCode.CONNECTION, `${node.host}:${node.port}: ${(error as Error).message}`, false)
    }
    if (records.length > 0 || done.length > 0) yield { records, done }
    if (result !== ResultCode.OK) throw new RecordError(result, `${node.name}, scanning ${scan.namespace}`)
    if (answered) return
  }
  throw new RecordError(ClientCode.CONNECTION, `${node.host}:${node.port}: the answer ended early`, false)
}
