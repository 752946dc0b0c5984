import { LimitedLog, type Log } from '../../connectors/connector.js'
import { resultName } from '../client/errors.js'
import type { TlsOptions } from '../client/transport.js'
import { RESULT_CODES, ResultCode } from '../engine/constants.js'
import { ChangeKind, type ChangeEntry } from './batch.js'
import { ShipConnection } from './ship-connection.js'
import { ShipGroup, Verdict, type Settle, type Shipper } from './shipper.js'

export interface DestinationNode {
  readonly name: string
  readonly host: string
  readonly port: number
  readonly tls?: TlsOptions | undefined
}

/** The remote cluster as shipping needs it: who owns what. The client's `Cluster` is one. */
export interface Destination {
  /** Resolves when at least one node and its partitions are known; goes on looking until then, or until closed. */
  open (): Promise<void>
  /** Nodes known now. */
  readonly nodes: readonly DestinationNode[]
  owner (namespace: string, partition: number): DestinationNode | undefined
  /** A node turned out to be gone: look again soon. */
  suspect (): void
  close (): Promise<void>
}

export const CLUSTER_SHIPPER_LIMITS = {
  /** A server answers the requests of one connection one after another; several keep its storage busy. */
  connectionsPerNode: 8,
  requestMsMax: 10_000,
  connectMsMax: 3000,
  backoffMsMin: 100,
  backoffMsMax: 5000
}
export type ClusterShipperLimits = typeof CLUSTER_SHIPPER_LIMITS

export interface ClusterShipperOptions {
  readonly destination: Destination
  /** Namespace names over there, in the order of the datacenter's configuration. */
  readonly remoteNamespaces: readonly string[]
  readonly settle: Settle
  readonly log: Log
  readonly limits?: Partial<ClusterShipperLimits>
}

/**
 * Results that no repetition will change: about this record, not about the moment or the site. Anything else that is no success is retried.
 * NAMESPACE, FORBIDDEN and ALWAYS_FORBIDDEN are not among them: a namespace that is missing, a clock that runs ahead or a switch over there concerns
 * every change until somebody puts it right, and giving up would lose them all.
 */
const PERMANENT: ReadonlySet<number> = new Set([
  ResultCode.PARAMETER, ResultCode.INCOMPATIBLE_TYPE, ResultCode.RECORD_TOO_BIG, ResultCode.UNSUPPORTED_FEATURE,
  ResultCode.KEY_MISMATCH, ResultCode.BIN_NAME, ResultCode.ENTERPRISE_ONLY,
  ResultCode.OP_NOT_APPLICABLE, ResultCode.INVALID_ENCODING, ResultCode.GEO_INVALID
])

/** Results that pass by themselves; a retry for any other may be waiting for an operator, so it is logged. */
const TRANSIENT: ReadonlySet<number> = new Set(RESULT_CODES.filter(({ retriable }) => retriable).map(({ code }) => code))

export function classifyResult (result: number, kind: number): Verdict {
  if (result === ResultCode.OK) return Verdict.SHIPPED
  // The other side has something newer, or never had what is deleted: either way it is as it should be.
  if (result === ResultCode.LOST_CONFLICT) return Verdict.SHIPPED
  if (result === ResultCode.NOT_FOUND && kind === ChangeKind.DELETE) return Verdict.SHIPPED
  return PERMANENT.has(result) ? Verdict.ABANDONED : Verdict.RETRY_DEST
}

/** A node that could not be reached, and when to try again. */
interface Outage {
  untilMs: number
  delayMs: number
}

/** Ships to the owners of the partitions in another cluster, pipelined: one write per connection and batch. */
export class ClusterShipper implements Shipper {
  readonly #destination: Destination
  readonly #remoteNamespaces: readonly string[]
  readonly #settle: Settle
  readonly #log: Log
  readonly #faults: LimitedLog
  readonly #refusals: LimitedLog
  readonly #stalls: LimitedLog
  readonly #limits: ClusterShipperLimits
  readonly #connections = new Map<string, ShipConnection>()
  readonly #outages = new Map<string, Outage>()
  #closed = false

  constructor (options: ClusterShipperOptions) {
    this.#destination = options.destination
    this.#remoteNamespaces = options.remoteNamespaces
    this.#settle = options.settle
    this.#log = options.log
    this.#faults = new LimitedLog(options.log)
    this.#refusals = new LimitedLog(options.log)
    this.#stalls = new LimitedLog(options.log)
    this.#limits = { ...CLUSTER_SHIPPER_LIMITS, ...options.limits }
  }

  get nodes (): number {
    if (this.#closed) return 0
    const now = performance.now()
    let nodes = 0
    for (const node of this.#destination.nodes) {
      if (this.#isUp(node, now)) nodes++
    }
    return nodes
  }

  async open (): Promise<void> {
    await this.#destination.open()
    this.#log.info({ nodes: this.#destination.nodes.length }, 'xdr: found the destination')
  }

  ship (entries: readonly ChangeEntry[]): void {
    const now = performance.now()
    const lanes = new Map<string, { node: DestinationNode, entries: ChangeEntry[], bytes: number }>()
    const homeless: ChangeEntry[] = []
    for (const entry of entries) {
      const node = this.#destination.owner(this.#remoteNamespaces[entry.namespace]!, entry.partition)
      if (node === undefined || !this.#isUp(node, now)) {
        homeless.push(entry)
        continue
      }
      const id = `${node.name}/${entry.partition % this.#limits.connectionsPerNode}`
      const lane = lanes.get(id)
      if (lane === undefined) lanes.set(id, { node, entries: [entry], bytes: entry.frameBytes })
      else {
        lane.entries.push(entry)
        lane.bytes += entry.frameBytes
      }
    }
    for (const [id, lane] of lanes) {
      const group = new ShipGroup(lane.entries, now)
      let frames: Buffer
      let connection: ShipConnection
      try {
        // The one copy: it makes a single write of the lane, and frees the batch for the next take.
        frames = Buffer.allocUnsafe(lane.bytes)
        let at = 0
        for (const entry of lane.entries) at += entry.frame.copy(frames, at)
        connection = this.#connection(id, lane.node)
      } catch (error) {
        // A port that is no port makes `connect` throw. Other lanes are on their way already, so this one is settled here and not thrown back.
        this.#lost(lane.node, error)
        this.#return(group, 0, Verdict.RETRY_NO_NODE)
        continue
      }
      connection.send(group, frames)
    }
    if (homeless.length > 0) {
      this.#faults.warn({ changes: homeless.length }, 'xdr: no node at the destination for these partitions, trying again')
      this.#return(new ShipGroup(homeless, now), 0, Verdict.RETRY_NO_NODE)
    }
  }

  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const connection of [...this.#connections.values()]) connection.destroy()
    await this.#destination.close()
  }

  #isUp (node: DestinationNode, now: number): boolean {
    const outage = this.#outages.get(node.name)
    return outage === undefined || now >= outage.untilMs
  }

  #connection (id: string, node: DestinationNode): ShipConnection {
    const open = this.#connections.get(id)
    if (open !== undefined) return open
    const connection: ShipConnection = new ShipConnection({
      host: node.host,
      port: node.port,
      tls: node.tls,
      connectMs: this.#limits.connectMsMax,
      timeoutMs: this.#limits.requestMsMax,
      onReply: (group, index, result) => {
        this.#outages.delete(node.name)
        const entry = group.entries[index]!
        const verdict = classifyResult(result, entry.kind)
        group.verdicts[index] = verdict
        if (verdict === Verdict.SHIPPED) return
        if (verdict === Verdict.ABANDONED) {
          this.#refusals.warn({ node: node.name, partition: entry.partition, result, name: resultName(result) }, 'xdr: a change is refused for good, abandoned')
        } else if (!TRANSIENT.has(result)) {
          const namespace = this.#remoteNamespaces[entry.namespace]
          this.#stalls.warn({ node: node.name, namespace, partition: entry.partition, result, name: resultName(result) }, 'xdr: the destination refuses changes, trying again')
        }
      },
      onGroup: (group) => this.#settle(group),
      onEnd: (unanswered, reason) => {
        this.#connections.delete(id)
        // A server may close a connection that is idle; that says nothing about the node.
        if (unanswered.length > 0 && !this.#closed) this.#lost(node, reason)
        for (const [group, first] of unanswered) this.#return(group, first, Verdict.RETRY_CONN_RESET)
      }
    })
    this.#connections.set(id, connection)
    return connection
  }

  /** Several connections of a node end together; that is one outage, and only the first moves the backoff. */
  #lost (node: DestinationNode, reason: unknown): void {
    this.#faults.warn({ node: node.name, host: node.host, port: node.port, err: reason }, 'xdr: lost a connection')
    this.#destination.suspect()
    const now = performance.now()
    const outage = this.#outages.get(node.name)
    if (outage !== undefined && now < outage.untilMs) return
    const delayMs = outage === undefined ? this.#limits.backoffMsMin : Math.min(outage.delayMs * 2, this.#limits.backoffMsMax)
    this.#outages.set(node.name, { delayMs, untilMs: now + delayMs })
  }

  #return (group: ShipGroup, first: number, verdict: Verdict): void {
    group.verdicts.fill(verdict, first)
    this.#settle(group)
  }
}
