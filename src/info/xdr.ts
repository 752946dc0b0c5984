// Datacenters: what is configured, and how shipping goes.

import { ResultCode } from '../engine/constants.js'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'
import { InfoError, pairs, type InfoCommandCall } from './request.js'

function datacenter (node: NodeView, call: InfoCommandCall) {
  const name = call.parameters.need('dc')
  const dc = node.runtimeConfig.current.xdr.dcs.find((candidate) => candidate.name === name)
  if (dc === undefined) throw new InfoError(ResultCode.PARAMETER, `no datacenter '${name}'`)
  return dc
}

/** `get-config:context=xdr[;dc=D[;namespace=N]]`; without a datacenter, their names. */
export function xdrConfig (node: NodeView, call: InfoCommandCall): string {
  if (call.parameters.get('dc') === undefined) {
    return pairs([['dcs', node.runtimeConfig.current.xdr.dcs.map(({ name }) => name).join(',')], ['src-id', 0]])
  }
  const dc = datacenter(node, call)
  const wanted = call.parameters.get('namespace')
  if (wanted === undefined) {
    const where = dc.type === 'cluster' ? dc['node-address-ports'] : dc.type === 'kafka' ? dc.kafka.brokers : [dc.file.path]
    return pairs([['type', dc.type], ['connector', dc.type !== 'cluster'], ['node-address-port', where.join(',')], ['period-ms', dc['period-ms']],
      ['namespaces', dc.namespaces.map(({ name }) => name).join(',')]])
  }
  const namespace = dc.namespaces.find(({ name }) => name === wanted)
  if (namespace === undefined) throw new InfoError(ResultCode.NAMESPACE, 'namespace not found in datacenter')
  return pairs(Object.entries({ 'remote-namespace': namespace.name, ...namespace, enabled: true }).filter(([key]) => key !== 'name'))
}

const getStats: InfoCommand = (node, call) => {
  const context = call.parameters.need('context')
  if (context !== 'xdr') throw new InfoError(ResultCode.PARAMETER, `unknown context '${context}'`)
  const dc = datacenter(node, call)
  const namespace = call.parameters.get('namespace')
  if (namespace !== undefined && !dc.namespaces.some(({ name }) => name === namespace)) {
    throw new InfoError(ResultCode.NAMESPACE, 'namespace not found in datacenter')
  }
  return pairs(Object.entries(node.xdr.stats(dc.name, namespace)))
}

export const xdrCommands: Record<string, InfoCommand> = { 'get-stats': getStats }
