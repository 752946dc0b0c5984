import type { ClusterDatacenterConfig, TlsConfig } from '../../config/schema.js'
import { LimitedLog, type Log } from '../../connectors/connector.js'
import { Cluster, parseEndpoint, readTlsFiles, type TlsOptions } from '../client/index.js'
import { CLUSTER_SHIPPER_LIMITS, type Destination } from './shipper-cluster.js'

const TEND_INTERVAL_MS = 1000
const INFO_TIMEOUT_MS = 3000
/** Shipping has connections of its own, which read no more of a reply than its result; the client's pool stays empty. */
const UNUSED_POOL = { connectionsMax: 1, inFlightMax: 1, waitingMax: 1 }

/** `host:port`, and behind it the name that the certificate carries. */
function seedOf (text: string) {
  const [, endpoint, tlsName] = /^(.*:\d+):([^:\]]+)$/.exec(text) ?? [text, text, undefined]
  return { ...parseEndpoint(endpoint!), tlsName }
}

function tlsOf (config: ClusterDatacenterConfig, entries: readonly TlsConfig[]): TlsOptions | undefined {
  const entry = entries.find(({ name }) => name === config['tls-name'])
  if (entry === undefined) return undefined
  return readTlsFiles({ caFile: entry['ca-file'], caPath: entry['ca-path'], certFile: entry['cert-file'], keyFile: entry['key-file'] })
}

/** The remote cluster as the client's tend finds it from the configured seeds. Throws when the files of its TLS entry cannot be used. */
export function clusterDestination (config: ClusterDatacenterConfig, log: Log, entries: readonly TlsConfig[] = []): Destination {
  const tending = new LimitedLog(log)
  return new Cluster({
    seeds: config['node-address-ports'].map(seedOf),
    tls: tlsOf(config, entries),
    tendIntervalMs: TEND_INTERVAL_MS,
    connectTimeoutMs: CLUSTER_SHIPPER_LIMITS.connectMsMax,
    infoTimeoutMs: INFO_TIMEOUT_MS,
    pool: UNUSED_POOL,
    onEvent: (event) => {
      if (event.kind === 'tend-failed') tending.warn({ dc: config.name, ...event }, 'xdr: cannot reach the destination')
      else log.info({ dc: config.name, ...event }, 'xdr: the destination changed')
    }
  })
}
