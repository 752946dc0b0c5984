// What bounds a namespace, as far as it can be commanded.

import { ResultCode } from '../engine/constants.js'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'
import { InfoError, type InfoCommandCall } from './request.js'

/** The configuration of the namespace that a command names, by the parameter that it should use or by one of the others that tools have for it. */
export function namespaceOf (node: NodeView, { parameters }: InfoCommandCall, parameter = 'namespace') {
  return namespaceNamed(node, parameters.need(parameter, { aliases: ['namespace', 'ns'], code: ResultCode.NAMESPACE }))
}

export function namespaceNamed (node: NodeView, name: string) {
  const config = node.runtimeConfig.current.namespaces.find((namespace) => namespace.name === name)
  if (config === undefined) throw new InfoError(ResultCode.NAMESPACE, 'namespace not found on node')
  return config
}

const evictionReset: InfoCommand = (node, call) => {
  const { name } = namespaceOf(node, call)
  if (call.parameters.get('ttl') !== undefined) throw new InfoError(ResultCode.UNSUPPORTED_FEATURE, 'an eviction depth is not kept, so it cannot be set')
  node.engine.native.resetEviction(name)
  return 'ok'
}

const tombRaider: InfoCommand = (node, call) => {
  node.engine.native.raidTombstones(namespaceOf(node, call).name)
  return 'ok'
}

export const limitsCommands: Record<string, InfoCommand> = { 'eviction-reset': evictionReset, 'tomb-raider': tombRaider }
