// The one door from TypeScript into the data plane.

import { addon } from './addon.js'
import type { NodeConfig } from '../../config/schema.js'
import type { EngineStats, Histograms, IndexDefinition, IndexStatuses, InfoRequest, Latencies, Listening, NativeNode, QueryListing } from './native.js'

/** An error of the native side with its stable code, e.g. `PERIGEE_LISTEN`. */
export class EngineError extends Error {
  readonly code: string

  constructor (code: string, message: string) {
    super(message)
    this.name = 'EngineError'
    this.code = code
  }

  static from (error: unknown): Error {
    if (!(error instanceof Error)) return new EngineError('PERIGEE_INTERNAL', String(error))
    const match = /^(PERIGEE_[A-Z]+): ([\s\S]*)$/.exec(error.message)
    return match === null ? error : new EngineError(match[1] ?? '', match[2] ?? '')
  }
}

/** The truncations of a namespace that are in force when it opens; `lut` in milliseconds since 2010-01-01. */
export type TruncationsOf = (namespace: string) => ReadonlyArray<{ set: string | undefined, lut: number }>

/** A typed engine over one `NativeNode`. */
export class Engine {
  readonly native: NativeNode

  private constructor (native: NativeNode) {
    this.native = native
  }

  /** An engine that is not open yet. Throws an `EngineError`. */
  static create (config: NodeConfig, truncations: TruncationsOf): Engine {
    return typed(() => new Engine(addon().NativeNode.create(JSON.stringify(nativeConfig(config, truncations)))))
  }

  /** Binds the port: info requests come from now on, requests for records are refused until `serve`. */
  start (onInfo: (request: InfoRequest) => void): Listening {
    return typed(() => this.native.start(onInfo))
  }

  /** Opens the namespaces and rebuilds their indexes. Rejects with an `EngineError`. */
  async open (): Promise<void> {
    try {
      await this.native.open()
    } catch (error) {
      throw EngineError.from(error)
    }
  }

  /** Answers requests for records from now on. */
  serve (): void {
    typed(() => { this.native.serve() })
  }

  /** The long queries of a task, or all that are listed. */
  queries (task?: string): QueryListing[] {
    return JSON.parse(this.native.queries(task)) as QueryListing[]
  }

  /** Walks the index, off this thread. Null for a set that is not known. Rejects with an `EngineError`. */
  async histograms (namespace: string, set?: string): Promise<Histograms | null> {
    try {
      const json = await this.native.histograms(namespace, set)
      return json === null ? null : JSON.parse(json) as Histograms
    } catch (error) {
      throw EngineError.from(error)
    }
  }

  /** Has a secondary index built in the background. Throws an `EngineError`: PERIGEE_ARGUMENT, PERIGEE_EXISTS or PERIGEE_LIMIT. */
  createIndex (namespace: string, definition: IndexDefinition): void {
    typed(() => { this.native.createIndex(namespace, JSON.stringify(definition)) })
  }

  /** False: there was none. Throws an `EngineError`. */
  dropIndex (namespace: string, name: string): boolean {
    return typed(() => this.native.dropIndex(namespace, name))
  }

  /** The secondary indexes that there are, and how far they are. Throws an `EngineError`. */
  indexes (): IndexStatuses {
    return JSON.parse(typed(() => this.native.indexes())) as IndexStatuses
  }

  stats (): EngineStats {
    return JSON.parse(this.native.stats()) as EngineStats
  }

  latencies (): Latencies {
    return JSON.parse(this.native.latencies()) as Latencies
  }
}

function typed<R> (call: () => R): R {
  try {
    return call()
  } catch (error) {
    throw EngineError.from(error)
  }
}

/** The port for TLS with its certificate (`TlsServiceConfig`), if there is one. */
function tlsConfig ({ service, network }: NodeConfig): object | undefined {
  const { 'tls-port': port, 'tls-name': name, 'tls-authenticate-client': clients } = network.service
  const identity = network.tls.find((entry) => entry.name === name)
  if (port === undefined || identity === undefined) return undefined
  return {
    port,
    'refresh-period': service['tls-refresh-period'],
    identity: { ...identity, 'authenticate-client': clients !== 'false', 'client-names': Array.isArray(clients) ? clients : [] }
  }
}

/** What the engine needs of a configuration (`ServerConfig` in native/service). */
function nativeConfig (config: NodeConfig, truncations: TruncationsOf): object {
  const { service, network, namespaces, xdr } = config
  return {
    service: {
      address: network.service.address,
      port: network.service.port,
      tls: tlsConfig(config),
      'service-threads': service['service-threads'],
      'proto-fd-max': service['proto-fd-max'],
      'proto-fd-idle-ms': service['proto-fd-idle-ms'],
      'transaction-max-ms': service['transaction-max-ms'],
      'transaction-pending-limit': service['transaction-pending-limit'],
      'network-loop': service['network-loop'],
      'shmem-directory': service['shmem-directory'],
      'sindex-builder-threads': service['sindex-builder-threads'],
      'sindex-gc-period': service['sindex-gc-period'],
      'udf-workers': config['mod-lua'].workers,
      'udf-time-limit-ms': config['mod-lua']['time-limit-ms']
    },
    namespaces: namespaces.map((namespace) => ({ ...namespace, truncations: truncations(namespace.name) })),
    datacenters: xdr.dcs.map((dc) => ({ name: dc.name, namespaces: dc.namespaces }))
  }
}
