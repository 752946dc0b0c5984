// The nodes of a cluster and who owns what. Once a second each node is asked for its generations, and for its peers and partitions when those have moved.
// A node that fails several times in a row, or that nobody refers to and that owns nothing, is dropped; it comes back through its peers or the seeds.

import { Connection } from './connection.js'
import { ClientCode, RecordError } from './errors.js'
import { requestInfo } from './info.js'
import { NodePool, type PoolOptions } from './node-pool.js'
import { PartitionMap } from './partition-map.js'
import { parsePeers, type Endpoint, type Peer } from './peers.js'
import type { Target, TlsOptions } from './transport.js'

export interface Seed extends Endpoint {
  /** Name that its certificate carries, if it is another than that of `tls`. */
  readonly tlsName?: string | undefined
}

export interface ClusterOptions {
  /** Where to start from. */
  readonly seeds: readonly Seed[]
  /** Speak TLS with every node. */
  readonly tls?: TlsOptions | undefined
  /** A node of another cluster is not used. */
  readonly clusterName?: string | undefined
  readonly tendIntervalMs: number
  readonly connectTimeoutMs: number
  /** Bound on one exchange with a node while tending. */
  readonly infoTimeoutMs: number
  readonly pool: Pick<PoolOptions, 'connectionsMax' | 'inFlightMax' | 'waitingMax'>
  /** Told what is worth a debug line. */
  readonly onEvent?: ((event: ClusterEvent) => void) | undefined
}

export type ClusterEvent =
  | { kind: 'node-added' | 'node-removed', node: string, host: string, port: number }
  | { kind: 'tend-failed', node: string | undefined, host: string, port: number, reason: string }

/** Rounds in which a node may fail before it is dropped. */
const FAILURES_MAX = 3
/** While no node is known, rounds follow each other faster, from this on. */
const SEARCH_MS_MIN = 50
/** Rounds asked for by `suspect` are at least this far apart. */
const SUSPECT_MS = 100
const NODES_MAX = 256

export interface ClusterNode extends Target {
  /** The node id. */
  readonly name: string
}

class Node implements ClusterNode {
  readonly name: string
  readonly host: string
  readonly port: number
  readonly tls: TlsOptions | undefined
  readonly pool: NodePool
  connection: Connection | undefined
  peersGeneration: string | undefined
  partitionGeneration: string | undefined
  peers: readonly Peer[] = []
  failures = 0

  constructor (name: string, target: Target, connection: Connection, pool: NodePool) {
    this.name = name
    this.host = target.host
    this.port = target.port
    this.tls = target.tls
    this.connection = connection
    this.pool = pool
  }

  close (): void {
    this.connection?.close()
    this.pool.close()
  }
}

export class Cluster {
  readonly #options: ClusterOptions
  readonly #nodes = new Map<string, Node>()
  readonly #partitions = new PartitionMap()
  #opening: Promise<void> | undefined
  #givesUp = false
  #opened: { resolve: () => void, reject: (error: Error) => void } | undefined
  #timer: NodeJS.Timeout | undefined
  #tending = false
  #tendedAt = -Infinity
  #searches = 0
  #lastFailure: RecordError | undefined
  #closed = false

  constructor (options: ClusterOptions) {
    this.#options = options
  }

  /**
   * Resolves when a node and its partitions are known; goes on looking until then. Rejects when closed before, and with `givesUp` as soon as every seed
   * was met and refuses to speak TLS with us, or we with it: time alone does not change that.
   */
  open ({ givesUp = false } = {}): Promise<void> {
    this.#givesUp ||= givesUp
    this.#opening ??= new Promise((resolve, reject) => {
      this.#opened = { resolve, reject }
      this.#schedule(0)
    })
    return this.#opening
  }

  get nodes (): readonly ClusterNode[] {
    return [...this.#nodes.values()]
  }

  get namespaces (): readonly string[] {
    return this.#partitions.namespaces
  }

  /** Why the last attempt to reach a node failed. */
  get lastFailure (): RecordError | undefined {
    return this.#lastFailure
  }

  /** The node that writes to a partition go to. */
  owner (namespace: string, partition: number): ClusterNode | undefined {
    const name = this.#partitions.master(namespace, partition)
    return name === undefined ? undefined : this.#nodes.get(name)
  }

  /** Every node with a copy of a partition, the master first. */
  owners (namespace: string, partition: number): ClusterNode[] {
    return this.#partitions.owners(namespace, partition).map((name) => this.#nodes.get(name)).filter((node) => node !== undefined)
  }

  /** Sends a request to a node over its pool. */
  request (node: ClusterNode, frame: Buffer, timeoutMs: number): Promise<Buffer> {
    const known = this.#nodes.get(node.name)
    if (known === undefined) return Promise.reject(new RecordError(ClientCode.NO_NODE, `${node.name} has left`, false))
    return known.pool.request(frame, timeoutMs)
  }

  /** A node turned out to be gone: look again soon. */
  suspect (): void {
    if (this.#closed || this.#tending) return
    this.#schedule(Math.max(0, this.#tendedAt + SUSPECT_MS - performance.now()))
  }

  /** Ends every connection. Closing twice is harmless. */
  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#timer)
    for (const node of this.#nodes.values()) node.close()
    this.#nodes.clear()
    this.#opened?.reject(new RecordError(ClientCode.ABORTED, 'the client is closed', false))
  }

  #schedule (delayMs: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      void this.#tend()
    }, delayMs)
  }

  // One round; never rejects.
  async #tend (): Promise<void> {
    this.#tending = true
    this.#tendedAt = performance.now()
    if (this.#nodes.size === 0) await this.#joinSeeds()
    await Promise.all([...this.#nodes.values()].map((node) => this.#refresh(node)))
    await this.#joinPeers()
    this.#dropLost()
    this.#tending = false
    if (this.#closed) return

    if (this.#nodes.size > 0 && this.#partitions.namespaces.length > 0) this.#opened?.resolve()
    this.#searches = this.#nodes.size > 0 ? 0 : this.#searches + 1
    const { tendIntervalMs } = this.#options
    this.#schedule(this.#searches > 0 ? Math.min(tendIntervalMs, SEARCH_MS_MIN * 2 ** this.#searches) : tendIntervalMs)
  }

  async #joinSeeds (): Promise<void> {
    const failures = await Promise.all(this.#options.seeds.map((seed) => this.#join(this.#targetOf(seed, seed.tlsName))))
    if (this.#givesUp && failures.every((failure) => failure?.result === ClientCode.TLS)) this.#opened?.reject(failures[0]!)
  }

  /** A node's certificate carries the name that its peers know, or else the one that all are expected to carry. */
  #targetOf ({ host, port }: Endpoint, tlsName = ''): Target {
    const { tls } = this.#options
    return { host, port, tls: tls === undefined || tlsName === '' ? tls : { ...tls, name: tlsName } }
  }

  /** Makes the node behind an endpoint known, if it is one that can be used and is not known yet. Resolves to why that failed. */
  async #join (endpoint: Target, expected?: string): Promise<RecordError | undefined> {
    let connection: Connection | undefined
    try {
      connection = await Connection.open({ ...endpoint, connectTimeoutMs: this.#options.connectTimeoutMs })
      const { clusterName } = this.#options
      const answer = await this.#ask(connection, ['node', 'partition-generation', ...(clusterName === undefined ? [] : ['cluster-name'])])
      const name = answer('node')
      if (clusterName !== undefined && answer('cluster-name') !== clusterName) {
        throw new RecordError(ClientCode.NO_NODE, `${endpoint.host}:${endpoint.port} belongs to cluster ${answer('cluster-name')}, not ${clusterName}`, false)
      }
      // A name other than the peers gave means that their word is old; its new one will come.
      if (expected !== undefined && expected !== name) throw new RecordError(ClientCode.NO_NODE, `${endpoint.host}:${endpoint.port} is ${name}, not ${expected}`, false)
      // -1 until the node has taken its place in the cluster.
      if (this.#closed || this.#nodes.has(name) || this.#nodes.size >= NODES_MAX || Number(answer('partition-generation')) < 0) {
        connection.close()
        return undefined
      }

      const { connectTimeoutMs, pool } = this.#options
      const node = new Node(name, endpoint, connection, new NodePool({ ...endpoint, connectTimeoutMs, ...pool }))
      this.#nodes.set(name, node)
      this.#options.onEvent?.({ kind: 'node-added', node: name, host: node.host, port: node.port })
      await this.#refresh(node)
      return undefined
    } catch (error) {
      connection?.close()
      return this.#failed(undefined, endpoint, error)
    }
  }

  async #refresh (node: Node): Promise<void> {
    try {
      if (node.connection === undefined || !node.connection.isOpen) {
        node.connection = await Connection.open({ host: node.host, port: node.port, tls: node.tls, connectTimeoutMs: this.#options.connectTimeoutMs })
      }
      const { connection } = node
      const generations = await this.#ask(connection, ['node', 'peers-generation', 'partition-generation'])
      if (generations('node') !== node.name) {
        // Another node took over the address. What is known of the old one is void at once.
        node.failures = FAILURES_MAX
        connection.close()
        return
      }
      if (generations('peers-generation') !== node.peersGeneration) {
        const command = this.#options.tls === undefined ? 'peers-clear-std' : 'peers-tls-std'
        const { generation, peers } = parsePeers((await this.#ask(connection, [command]))(command))
        node.peers = peers
        node.peersGeneration = generation
      }
      const partitionGeneration = generations('partition-generation')
      if (partitionGeneration !== node.partitionGeneration && Number(partitionGeneration) >= 0) {
        // Asked together: a map that is newer than its generation is fetched once more, an older one would never be.
        const answer = await this.#ask(connection, ['partition-generation', 'replicas'])
        if (this.#nodes.get(node.name) === node) this.#partitions.apply(node.name, answer('replicas'))
        node.partitionGeneration = answer('partition-generation')
      }
      node.failures = 0
    } catch (error) {
      node.failures++
      node.connection?.close()
      this.#failed(node.name, node, error)
    }
    // Closed while an answer was on its way.
    if (this.#closed) node.close()
  }

  async #joinPeers (): Promise<void> {
    const unknown = new Map<string, Peer>()
    for (const node of this.#nodes.values()) {
      for (const peer of node.peers) {
        if (!this.#nodes.has(peer.name)) unknown.set(peer.name, peer)
      }
    }
    await Promise.all([...unknown.values()].map(async (peer) => {
      for (const endpoint of peer.endpoints) {
        if (this.#nodes.has(peer.name) || this.#closed) return
        await this.#join(this.#targetOf(endpoint, peer.tlsName), peer.name)
      }
    }))
  }

  #dropLost (): void {
    const referred = new Set([...this.#nodes.values()].flatMap((node) => node.peers.map((peer) => peer.name)))
    for (const node of [...this.#nodes.values()]) {
      const lost = node.failures >= FAILURES_MAX
      const left = this.#nodes.size > 1 && !referred.has(node.name) && !this.#partitions.owns(node.name)
      if (!lost && !left) continue
      this.#nodes.delete(node.name)
      this.#partitions.remove(node.name)
      node.close()
      this.#options.onEvent?.({ kind: 'node-removed', node: node.name, host: node.host, port: node.port })
    }
  }

  async #ask (connection: Connection, commands: string[]): Promise<(command: string) => string> {
    const values = await requestInfo(connection, commands, this.#options.infoTimeoutMs)
    return (command) => {
      const value = values.get(command)
      if (value === undefined || value.startsWith('ERROR')) throw new RecordError(ClientCode.NO_NODE, `${command} was answered with ${value ?? 'nothing'}`, false)
      return value
    }
  }

  #failed (node: string | undefined, { host, port }: Endpoint, error: unknown): RecordError {
    this.#lastFailure = error instanceof RecordError ? error : new RecordError(ClientCode.NO_NODE, `${host}:${port}: ${(error as Error).message}`, false)
    this.#options.onEvent?.({ kind: 'tend-failed', node, host, port, reason: this.#lastFailure.message })
    return this.#lastFailure
  }
}
