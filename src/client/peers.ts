// Addresses of nodes: `host:port` as people write them, and the answers to `peers-clear-std` and `peers-tls-std`.
//
//   peers = generation "," default port "," "[" [peer ("," peer)*] "]"
//   peer  = "[" name "," tls name "," "[" [host ("," host)*] "]" "]"
//   host  = address [":" port]            an IPv6 address is in brackets when a port follows

import { isIPv6 } from 'node:net'

export interface Endpoint {
  readonly host: string
  readonly port: number
}

export interface Peer {
  readonly name: string
  /** Name that its certificate carries; empty where there is no TLS. */
  readonly tlsName: string
  readonly endpoints: readonly Endpoint[]
}

export const DEFAULT_PORT = 3000

/** Text that is no address or no list of peers. */
export class AddressError extends Error {
  readonly code = 'ADDRESS'
}

/** Reads `host`, `host:port`, `[address]:port` or a bare IPv6 address. Throws {@link AddressError}. */
export function parseEndpoint (text: string, defaultPort = DEFAULT_PORT): Endpoint {
  const match = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text) ?? /^([^:[\]\s]+)(?::(\d{1,5}))?$/.exec(text)
  if (match === null && isIPv6(text)) return { host: text, port: defaultPort }
  const port = Number(match?.[2] ?? defaultPort)
  if (match === null || port < 1 || port > 65_535) throw new AddressError(`${JSON.stringify(text)} is not an address; allowed: host, host:port, [address]:port`)
  return { host: match[1]!, port }
}

/** Throws {@link AddressError}. A peer without addresses has left, and is not in the result. */
export function parsePeers (text: string): { generation: string, peers: Peer[] } {
  const match = /^(\d+),(\d*),\[(.*)\]$/s.exec(text.trim())
  if (match === null) throw new AddressError(`${JSON.stringify(text.slice(0, 80))} is not a list of peers`)
  const defaultPort = match[2] === '' ? DEFAULT_PORT : Number(match[2])
  const peers: Peer[] = []
  let rest = match[3]!
  while (rest !== '') {
    const peer = /^\[([^,\]]+),([^,\]]*),(?:\[((?:\[[^\]]*\]|[^[\]])*)\])?\],?/.exec(rest)
    if (peer === null) throw new AddressError(`${JSON.stringify(rest.slice(0, 80))} is not a peer`)
    const hosts = (peer[3] ?? '').split(',').filter((host) => host !== '')
    if (hosts.length > 0) peers.push({ name: peer[1]!, tlsName: peer[2]!, endpoints: hosts.map((host) => parseEndpoint(host, defaultPort)) })
    rest = rest.slice(peer[0].length)
  }
  return { generation: match[1]!, peers }
}
