// Who this node is, and where it can be reached.

import { networkInterfaces } from 'node:os'
import { isIPv6 } from 'node:net'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'

/** Clients decide by this what they may send; Perigee speaks the protocol of this version. */
export const BUILD = '8.1.2.0'
/** Tools and test suites that look for `Enterprise` in it use what only servers of that kind have, as this one does. */
export const EDITION = 'Perigee Enterprise-compatible Edition'

const FEATURES = ['batch-any', 'batch-index', 'blob-bits', 'cdt-index', 'cdt-list', 'cdt-map', 'float', 'geo', 'peers', 'pipelining', 'pquery', 'pscans', 'query-show', 'replicas',
  'replicas-all', 'replicas-master', 'sindex-exists', 'truncate-namespace', 'udf']

/** `host:port` as clients write it. */
function endpoint (host: string, port: number): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`
}

/** The addresses that clients are told, with a port: the configured one, or each of this machine's when the node listens on all. */
export function accessAddresses (node: NodeView, port = node.listening.port): string[] {
  const { address, 'access-address': access } = node.runtimeConfig.current.network.service
  if (access !== undefined) return [endpoint(access, port)]
  if (address !== '0.0.0.0' && address !== '::') return [endpoint(node.listening.address, port)]
  const all = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []).filter((entry) => entry.family === 'IPv4')
  const outside = all.filter((entry) => !entry.internal)
  return (outside.length > 0 ? outside : all).map((entry) => endpoint(entry.address, port))
}

const addresses: InfoCommand = (node) => accessAddresses(node).join(',')
const tlsAddresses: InfoCommand = (node) => node.listening.tlsPort === undefined ? '' : accessAddresses(node, node.listening.tlsPort).join(',')
const none: InfoCommand = () => ''
const nodeId: InfoCommand = (node) => node.nodeId
/** `<generation>,<default port>,[peers]`: this node has no peers. */
const noPeers: InfoCommand = () => '0,3000,[]'

export const identityCommands: Record<string, InfoCommand> = {
  node: nodeId,
  name: nodeId,
  build: () => BUILD,
  edition: () => EDITION,
  version: () => `${EDITION} build ${BUILD}`,
  release: () => `edition=${EDITION};version=${BUILD};os=${process.platform};arch=${process.arch}`,
  build_os: () => process.platform,
  build_arch: () => process.arch,
  features: () => FEATURES.join(';'),
  status: (node) => node.ready ? 'ok' : 'starting',
  connection: () => 'admin=false',
  'cluster-name': (node) => node.runtimeConfig.current.service['cluster-name'] ?? 'null',
  service: addresses,
  'service-clear-std': addresses,
  'service-clear-alt': none,
  'service-tls-std': tlsAddresses,
  'service-tls-alt': none,
  services: none,
  'peers-generation': () => '0',
  'peers-clear-std': noPeers,
  'peers-clear-alt': noPeers,
  'peers-tls-std': noPeers,
  'peers-tls-alt': noPeers,
  'alumni-clear-std': noPeers,
  'alumni-tls-std': noPeers
}
