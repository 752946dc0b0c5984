import type { Log } from '../../connectors/connector.js'
import { FileConnector } from '../../connectors/file/writer.js'
import { KafkaConnector } from '../../connectors/kafka/producer.js'
import type { ClusterDatacenterConfig, DatacenterConfig, NodeConfig } from '../../config/schema.js'
import { Datacenter, type DatacenterLimits } from './datacenter.js'
import type { XdrNative } from './native.js'
import { ShipTimes } from './ship-times.js'
import { ConnectorShipper } from './shipper-connector.js'
import { ClusterShipper, type ClusterShipperLimits, type Destination } from './shipper-cluster.js'
import type { Settle, Shipper } from './shipper.js'

const SAVE_PERIOD_MS = 1000

export interface XdrOptions {
  readonly native: XdrNative
  readonly config: NodeConfig['xdr']
  readonly workDirectory: string
  readonly log: Log
  /** Finds the nodes of a remote cluster: `clusterDestination`, or a fixed one in tests. */
  readonly destination: (config: ClusterDatacenterConfig, log: Log) => Destination
  readonly limits?: Partial<DatacenterLimits & ClusterShipperLimits>
  readonly savePeriodMs?: number
}

export type XdrStats = Record<string, number | string>

interface Site {
  readonly config: DatacenterConfig
  readonly datacenter: Datacenter
  readonly shipTimes: ReadonlyMap<string, ShipTimes>
}

/** Counters that the native side keeps. */
const NATIVE_STATS = ['in_queue', 'in_progress', 'not_found', 'filtered_out', 'recoveries', 'recoveries_pending', 'hot_keys'] as const

/** Every datacenter that this node ships to: open -> start -> drain -> close. */
export class Xdr {
  readonly #options: XdrOptions
  readonly #sites = new Map<string, Site>()
  #timer: NodeJS.Timeout | undefined
  #saving: Promise<void> = Promise.resolve()
  #closed = false

  constructor (options: XdrOptions) {
    this.#options = options
  }

  /** Hands the saved last-ship times to the native side, which has not started yet. Rejects when a saved file cannot be read at all. */
  async open (): Promise<void> {
    const { config, native, workDirectory, log } = this.#options
    for (const dc of config.dcs) {
      const shipTimes = new Map<string, ShipTimes>()
      for (const { name } of dc.namespaces) {
        const times = new ShipTimes(workDirectory, dc.name, name, log)
        native.xdrSetShipTimes(dc.name, name, await times.load())
        shipTimes.set(name, times)
      }
      const datacenter = new Datacenter({
        name: dc.name,
        namespaces: dc.namespaces.map((namespace) => ({ name: namespace.name, maxThroughput: namespace['max-throughput'] })),
        periodMs: dc['period-ms'],
        native,
        shipper: (settle) => this.#shipper(dc, settle),
        log,
        ...(this.#options.limits === undefined ? {} : { limits: this.#options.limits })
      })
      this.#sites.set(dc.name, { config: dc, datacenter, shipTimes })
    }
  }

  start (): void {
    for (const { datacenter } of this.#sites.values()) datacenter.start()
    if (this.#sites.size > 0) this.#timer = setInterval(() => { void this.#save() }, this.#options.savePeriodMs ?? SAVE_PERIOD_MS)
  }

  /** Finishes what is in flight; changes still queued wait for the next start. */
  async drain (): Promise<void> {
    await Promise.all([...this.#sites.values()].map(({ datacenter }) => datacenter.drain()))
    await this.#save()
  }

  /** Before the native side closes. Idempotent. */
  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    clearInterval(this.#timer)
    await Promise.all([...this.#sites.values()].map(({ datacenter }) => datacenter.close()))
    await this.#save()
  }

  dcs (): string[] {
    return [...this.#sites.keys()]
  }

  namespaces (dc: string): string[] {
    return this.#sites.get(dc)?.config.namespaces.map(({ name }) => name) ?? []
  }

  /**
   * Statistics under their names in the info protocol; of one namespace, or of all together. Throws a RangeError for a datacenter or namespace that
   * is not configured.
   */
  stats (dc: string, namespace?: string): XdrStats {
    const site = this.#sites.get(dc)
    if (site === undefined) throw new RangeError(`no datacenter '${dc}'`)
    const { datacenter } = site
    const selected = [...datacenter.namespaces.keys()].filter((index) => namespace === undefined || datacenter.namespaces[index]!.name === namespace)
    if (selected.length === 0) throw new RangeError(`datacenter '${dc}' has no namespace '${namespace}'`)

    const native = JSON.parse(this.#options.native.xdrStats(dc)) as Record<string, Record<string, number> | undefined>
    const ofNative = (name: string): number[] => selected.map((index) => native[datacenter.namespaces[index]!.name]?.[name] ?? 0)
    const counters = selected.map((index) => datacenter.counters(index))
    const lagMs = Math.max(...ofNative('lag_ms'))
    const stats: XdrStats = { lag: Math.floor(lagMs / 1000), lag_ms: lagMs }
    for (const name of NATIVE_STATS) stats[name] = sum(ofNative(name))
    stats.success = sum(counters.map(({ success }) => success))
    stats.abandoned = sum(counters.map(({ abandoned }) => abandoned))
    stats.retry_no_node = sum(counters.map((counter) => counter.retry_no_node))
    stats.retry_conn_reset = sum(counters.map((counter) => counter.retry_conn_reset))
    stats.retry_dest = sum(counters.map((counter) => counter.retry_dest))
    stats.bytes_shipped = sum(counters.map((counter) => counter.bytes_shipped))
    stats.throughput = sum(counters.map(({ throughput }) => throughput))
    stats.nodes = datacenter.nodes
    stats.latency_ms = Math.round(datacenter.latencyMs)
    stats.lap_us = datacenter.lapUs
    return stats
  }

  #shipper (dc: DatacenterConfig, settle: Settle): Shipper {
    const { log, limits } = this.#options
    switch (dc.type) {
      case 'cluster': return new ClusterShipper({
        destination: this.#options.destination(dc, log),
        remoteNamespaces: dc.namespaces.map((namespace) => namespace['remote-namespace'] ?? namespace.name),
        settle,
        log,
        ...(limits === undefined ? {} : { limits })
      })
      case 'kafka': return new ConnectorShipper(new KafkaConnector(dc.kafka, log), settle, log)
      case 'file': return new ConnectorShipper(new FileConnector(dc.file, log), settle, log)
    }
  }

  /** Saves follow one another. A failure is logged and made up for by the next: what is on disk is only older. */
  #save (): Promise<void> {
    this.#saving = this.#saving.then(async () => {
      for (const [dc, { shipTimes }] of this.#sites) {
        for (const [namespace, times] of shipTimes) {
          try {
            await times.save(this.#options.native.xdrShipTimes(dc, namespace))
          } catch (error) {
            this.#options.log.warn({ dc, namespace, err: error }, 'xdr: cannot save last-ship times')
          }
        }
      }
    })
    return this.#saving
  }
}

function sum (values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
