// Who this node is, and where it can be reached.

import { networkInterfaces } from 'node:os'
import { isIPv6 } from 'node:net'
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

/** An address as clients are told it; each of this machine's if it stands for all. */
function toldAddresses (address: string, port: number): string {
  if (address !== '0.0.0.0' && address !== '::') return endpoint(address, port)
  const all = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []).filter((entry) => entry.family === 'IPv4')
  const outside = all.filter((entry) => !entry.internal)
  return (outside.length > 0 ? outside : all).map((entry) => endpoint(entry.address, port)).join(',')
}

const addresses: InfoCommand = ({ listening, runtimeConfig }) => {
  const { 'access-address': address = listening.address, 'access-port': port = listening.port } = runtimeConfig.current.network.service
  return toldAddresses(address, port)
}

const tlsAddresses: InfoCommand = ({ listening, runtimeConfig }) => {
  if (listening.tlsPort === undefined) return ''
  const { 'access-address': plain = listening.address, 'tls-access-address': address = plain, 'tls-access-port': port = listening.tlsPort } = runtimeConfig.current.network.service
  return toldAddresses(address, port)
}

/** For clients that ask for alternate addresses; empty when there is none. */
const alternateAddresses: InfoCommand = ({ listening, runtimeConfig }) => {
  const { 'alternate-access-address': address, 'alternate-access-port': port = listening.port } = runtimeConfig.current.network.service
  return address === undefined ? '' : toldAddresses(address, port)
}

const tlsAlternateAddresses: InfoCommand = ({ listening, runtimeConfig }) => {
  if (listening.tlsPort === undefined) return ''
  const { 'alternate-access-address': plain, 'tls-alternate-access-address': address = plain, 'tls-alternate-access-port': port = listening.tlsPort } = runtimeConfig.current.network.service
  return address === undefined ? '' : toldAddresses(address, port)
}

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
  'service-clear-alt': alternateAddresses,
  'service-tls-std': tlsAddresses,
  'service-tls-alt': tlsAlternateAddresses,
  services: none,
  'peers-generation': () => '0',
  'peers-clear-std': noPeers,
  'peers-clear-alt': noPeers,
  'peers-tls-std': noPeers,
  'peers-tls-alt': noPeers,
  'alumni-clear-std': noPeers,
  'alumni-tls-std': noPeers
}
