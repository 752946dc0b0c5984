// A small smart client: it knows which node owns which partition and speaks to that node directly.

import { setTimeout as sleep } from 'node:timers/promises'
import { FieldId, ResultCode } from '../engine/constants.js'
import { aggregateOn, type AggregateOptions } from './aggregation.js'
import { Cluster, type ClusterEvent, type ClusterNode } from './cluster.js'
import { IN_FLIGHT_MAX } from './connection.js'
import { partitionOf } from './digest.js'
import { ClientCode, RecordError } from './errors.js'
import { decodeInfo, encodeInfo } from './info.js'
import { decodeBins, decodeMessage, setTimeoutMs, type Message } from './message.js'
import type { Operation } from './operation.js'
import { decodeParticle } from './particle.js'
import { parseEndpoint, type Endpoint } from './peers.js'
import {
  applyRequest, existsRequest, getRequest, operateRequest, putRequest, removeRequest, selectRequest, touchRequest,
  type Command, type Key, type Policy, type WritePolicy
} from './request.js'
import type { TlsOptions } from './transport.js'
import { scanPages, type ScanOptions, type ScanPage } from './scan.js'
import { setOwn, type Bins, type Value } from './value.js'

export interface ClientOptions {
  /** Where to start from: `host`, `host:port` or `{ host, port }`. */
  readonly hosts: ReadonlyArray<string | Endpoint>
  /** Speak TLS with every node. */
  readonly tls?: TlsOptions | undefined
  /** Bound on a call whose policy has none, and on connecting to the cluster. */
  readonly timeoutMs?: number | undefined
  readonly connectTimeoutMs?: number | undefined
  readonly tendIntervalMs?: number | undefined
  readonly retriesMax?: number | undefined
  readonly clusterName?: string | undefined
  /** Connections to each node. */
  readonly connectionsMax?: number | undefined
  /** Requests in flight on each connection. */
  readonly inFlightMax?: number | undefined
  /** Requests that wait for each node when its connections are full. */
  readonly waitingMax?: number | undefined
  readonly onEvent?: ((event: ClusterEvent) => void) | undefined
}

export interface ClientRecord {
  readonly bins: Bins
  readonly generation: number
  /** Seconds since 2010-01-01 at which the record expires; 0 never. */
  readonly voidTime: number
  /** The user's key, when the answer has it. */
  readonly key?: Value
}

/** A record that a scan met: it is known by its digest, and by its key only where the record stores it. */
export interface ScannedRecord extends ClientRecord {
  readonly digest: Buffer
  /** Empty for a record without a set. */
  readonly set: string
}

export type RecordMetadata = Omit<ClientRecord, 'bins' | 'key'>

const TIMEOUT_MS = 1000
const CONNECT_TIMEOUT_MS = 1000
const TEND_INTERVAL_MS = 1000
const RETRIES_MAX = 2
const RETRY_MS_MIN = 2
const RETRY_MS_MAX = 100
const CONNECTIONS_MAX = 8
const WAITING_MAX = 16_384

export class Client {
  readonly #cluster: Cluster
  readonly #timeoutMs: number
  readonly #connectTimeoutMs: number
  readonly #retriesMax: number

  /**
   * Resolves when the cluster can be used. Rejects with CLIENT_NO_NODE when it cannot within `timeoutMs` (at least the time to connect), and at once with
   * CLIENT_TLS where no host accepts how it is spoken to, or none has a certificate that is accepted.
   */
  static async connect (options: ClientOptions): Promise<Client> {
    const client = new Client(options)
    const timeoutMs = Math.max(options.timeoutMs ?? TIMEOUT_MS, options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS)
    let timer: NodeJS.Timeout | undefined
    const opening = client.#cluster.open({ givesUp: true })
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(client.#unreachable(timeoutMs)), timeoutMs)
    })
    try {
      await Promise.race([opening, late])
      return client
    } catch (error) {
      opening.catch(() => {})
      await client.close()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  private constructor (options: ClientOptions) {
    if (options.hosts.length === 0) throw new RangeError('a client needs at least one host')
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS
    this.#connectTimeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS
    this.#retriesMax = options.retriesMax ?? RETRIES_MAX
    this.#cluster = new Cluster({
      seeds: options.hosts.map((host) => typeof host === 'string' ? parseEndpoint(host) : host),
      tls: options.tls,
      clusterName: options.clusterName,
      tendIntervalMs: options.tendIntervalMs ?? TEND_INTERVAL_MS,
      connectTimeoutMs: this.#connectTimeoutMs,
      infoTimeoutMs: Math.max(this.#timeoutMs, TIMEOUT_MS),
      pool: {
        connectionsMax: options.connectionsMax ?? CONNECTIONS_MAX,
        inFlightMax: options.inFlightMax ?? IN_FLIGHT_MAX,
        waitingMax: options.waitingMax ?? WAITING_MAX
      },
      onEvent: options.onEvent
    })
  }

  get nodes (): readonly ClusterNode[] {
    return this.#cluster.nodes
  }

  get namespaces (): readonly string[] {
    return this.#cluster.namespaces
  }

  /** The whole record, or null if there is none. */
  async get (key: Key, policy: Policy = {}): Promise<ClientRecord | null> {
    const message = await this.#read(getRequest(key, policy), policy)
    return message === null ? null : recordOf(message)
  }

  /** The record with the named bins only, or null if there is none. */
  async select (key: Key, bins: readonly string[], policy: Policy = {}): Promise<ClientRecord | null> {
    const message = await this.#read(selectRequest(key, bins, policy), policy)
    return message === null ? null : recordOf(message)
  }

  /** Generation and void time, or null if there is no record. */
  async exists (key: Key, policy: Policy = {}): Promise<RecordMetadata | null> {
    const message = await this.#read(existsRequest(key, policy), policy)
    return message === null ? null : metadataOf(message)
  }

  /** Writes bins; null removes one. Rejects with {@link RecordError}. */
  async put (key: Key, bins: Bins, policy: WritePolicy = {}): Promise<RecordMetadata> {
    return metadataOf(await this.#execute(putRequest(key, bins, policy), policy))
  }

  /** Deletes the record; false if there was none. */
  async remove (key: Key, policy: WritePolicy = {}): Promise<boolean> {
    return await this.#read(removeRequest(key, policy), policy) !== null
  }

  /** Renews the time to live. Rejects with NOT_FOUND if there is no record. */
  async touch (key: Key, policy: WritePolicy = {}): Promise<RecordMetadata> {
    return metadataOf(await this.#execute(touchRequest(key, policy), policy))
  }

  /** Does operations in order on one record, all or nothing; the record holds what they return. */
  async operate (key: Key, operations: readonly Operation[], policy: WritePolicy = {}): Promise<ClientRecord> {
    return recordOf(await this.#execute(operateRequest(key, operations, policy), policy))
  }

  /** Runs a Lua function on a record, where the record is. Rejects with UDF_EXECUTION and the script's message when it fails. */
  async apply (key: Key, module: string, name: string, args: readonly Value[] = [], policy: WritePolicy = {}): Promise<Value> {
    return udfResult(await this.#execute(applyRequest(key, module, name, args, policy), policy))
  }

  /**
   * The records of a namespace or a set, in no order. They are read as fast as the caller takes them. A record that is there all the time comes once; where
   * something fails on the way, the scan goes on behind the last record. Rejects with {@link RecordError} when nothing came for `patienceMs`.
   */
  async * scan (namespace: string, options: ScanOptions = {}): AsyncGenerator<ScannedRecord, void> {
    for await (const { records } of this.scanPages(namespace, options)) {
      for (const { digest, set, key, generation, voidTime, bins } of records) {
        const decoded: Bins = {}
        for (const { name, type, value } of bins) setOwn(decoded, utf8(name), decodeParticle(type, value))
        const record = { digest, set: utf8(set), generation, voidTime, bins: decoded }
        yield key === undefined ? record : { ...record, key: decodeParticle(key[0]!, key.subarray(1)) }
      }
    }
  }

  /** As `scan`, with records as they are on the wire, and told when a partition is complete: for those who keep track of where they are. */
  scanPages (namespace: string, options: ScanOptions = {}): AsyncGenerator<ScanPage, void> {
    if (!this.namespaces.includes(namespace)) throw this.#homeless(namespace, 0)
    return scanPages(this.#cluster, namespace, options, this.#connectTimeoutMs)
  }

  /**
   * Has a stream function work on the records of a namespace or a set: the values that it makes of them, mostly one. They are read as fast as the caller
   * takes them. Rejects with UDF_EXECUTION and what the script says when it fails; values that came before count for nothing then.
   */
  aggregate (namespace: string, module: string, name: string, args: readonly Value[] = [], options: AggregateOptions = {}): AsyncGenerator<Value, void> {
    if (!this.namespaces.includes(namespace)) throw this.#homeless(namespace, 0)
    const [node, ...others] = this.#cluster.nodes
    if (node === undefined) throw this.#homeless(namespace, 0)
    // Each would reduce its own records to the end.
    if (others.length > 0) throw new RecordError(ResultCode.UNSUPPORTED_FEATURE, 'an aggregation over several nodes', false)
    return aggregateOn(node, namespace, { module, name, args }, options, this.#connectTimeoutMs)
  }

  /** One info command on one node (any, unless named). The answer may be an error: see `infoError`. */
  async info (command: string, options: { node?: string, timeoutMs?: number } = {}): Promise<string> {
    const node = this.#cluster.nodes.find(({ name }) => options.node === undefined || name === options.node)
    if (node === undefined) throw new RecordError(ClientCode.NO_NODE, options.node === undefined ? 'no node is known' : `${options.node} is not known`, false)
    return this.#infoOf(node, command, options.timeoutMs ?? this.#timeoutMs)
  }

  /** One info command on every node: the answers by node. Rejects if a node does not answer. */
  async infoAll (command: string, options: { timeoutMs?: number } = {}): Promise<Map<string, string>> {
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs
    return new Map(await Promise.all(this.#cluster.nodes.map(async (node): Promise<[string, string]> => [node.name, await this.#infoOf(node, command, timeoutMs)])))
  }

  /** Sends a ready frame to the owner of a partition, once, and resolves to the decoded answer whatever its result is. */
  async send (namespace: string, partition: number, frame: Buffer, timeoutMs = this.#timeoutMs): Promise<Message> {
    const node = this.#cluster.owner(namespace, partition)
    if (node === undefined) throw this.#homeless(namespace, partition)
    return decodeMessage(await this.#request(node, frame, timeoutMs))
  }

  /** Ends every connection; calls in flight are rejected. Closing twice is harmless. */
  close (): Promise<void> {
    return this.#cluster.close()
  }

  // A record that is not there is an answer, not a failure.
  async #read (command: Command, policy: Policy): Promise<Message | null> {
    try {
      return await this.#execute(command, policy)
    } catch (error) {
      if (error instanceof RecordError && error.result === ResultCode.NOT_FOUND) return null
      throw error
    }
  }

  async #execute (command: Command, policy: Policy): Promise<Message> {
    const timeoutMs = policy.timeoutMs ?? this.#timeoutMs
    const deadline = performance.now() + timeoutMs
    const retriesMax = policy.retriesMax ?? this.#retriesMax
    const partition = partitionOf(command.digest)
    for (let attempt = 0; ; attempt++) {
      const left = Math.max(1, Math.ceil(deadline - performance.now()))
      try {
        const node = this.#target(command, partition, attempt)
        setTimeoutMs(command.frame, left)
        const message = decodeMessage(await this.#request(node, command.frame, left))
        if (message.result === ResultCode.OK) return message
        throw new RecordError(message.result, failureOf(message))
      } catch (error) {
        const pauseMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 4 ** attempt)
        if (!(error instanceof RecordError) || !error.retriable || (command.writes && error.inDoubt)) throw error
        if (attempt >= retriesMax || performance.now() + pauseMs >= deadline) throw error
        await sleep(pauseMs)
      }
    }
  }

  // Repeats of a read go round the copies; writes go to the master.
  #target ({ namespace, writes }: Command, partition: number, attempt: number): ClusterNode {
    const owners = this.#cluster.owners(namespace, partition)
    const node = writes ? this.#cluster.owner(namespace, partition) : owners[attempt % Math.max(1, owners.length)]
    if (node === undefined) throw this.#homeless(namespace, partition)
    return node
  }

  async #request (node: ClusterNode, frame: Buffer, timeoutMs: number): Promise<Buffer> {
    try {
      return await this.#cluster.request(node, frame, timeoutMs)
    } catch (error) {
      if (error instanceof RecordError && error.result === ClientCode.CONNECTION) this.#cluster.suspect()
      throw error
    }
  }

  async #infoOf (node: ClusterNode, command: string, timeoutMs: number): Promise<string> {
    const value = decodeInfo(await this.#request(node, encodeInfo([command]), timeoutMs)).get(command)
    if (value === undefined) throw new RecordError(ResultCode.UNKNOWN, `${node.name} did not answer ${command}`, false)
    return value
  }

  #homeless (namespace: string, partition: number): RecordError {
    const { namespaces } = this.#cluster
    if (namespaces.length > 0 && !namespaces.includes(namespace)) {
      return new RecordError(ResultCode.NAMESPACE, `there is no namespace ${namespace}; there are: ${namespaces.join(', ')}`, false)
    }
    return new RecordError(ClientCode.NO_NODE, `no node is known for partition ${partition} of ${namespace}`, false)
  }

  #unreachable (timeoutMs: number): RecordError {
    return new RecordError(ClientCode.NO_NODE, this.#cluster.lastFailure?.message ?? `no node answered within ${timeoutMs} ms`, false)
  }
}

const UDF_SUCCESS = 'SUCCESS'
const UDF_FAILURE = 'FAILURE'

function udfResult (message: Message): Value {
  const op = message.ops.find(({ name }) => name === UDF_SUCCESS)
  return op === undefined ? null : decodeParticle(op.type, op.value)
}

/** What a failed script, or the server, says about it. */
function failureOf (message: Message): string | undefined {
  const op = message.ops.find(({ name }) => name === UDF_FAILURE)
  return op?.value.toString('utf8')
}

function utf8 (latin1: string): string {
  return Buffer.from(latin1, 'latin1').toString('utf8')
}

function metadataOf (message: Message): RecordMetadata {
  return { generation: message.generation, voidTime: message.ttl }
}

function recordOf (message: Message): ClientRecord {
  const key = message.fields.get(FieldId.KEY)
  const record = { ...metadataOf(message), bins: decodeBins(message) }
  return key === undefined || key.length === 0 ? record : { ...record, key: decodeParticle(key[0]!, key.subarray(1)) }
}
