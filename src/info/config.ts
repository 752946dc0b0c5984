// Configuration as it is in force, in the flat `key=value;...` layout of tools.

import type { NamespaceConfig } from '../../config/schema.js'
import { ResultCode } from '../engine/constants.js'
import type { InfoCommand } from './registry.js'
import { InfoError, pairs } from './request.js'
import { xdrConfig } from './xdr.js'

type Pair = readonly [string, unknown]

/** Flattens sections to dotted names; list items to `name[i]`. */
function flatten (value: object, prefix = ''): Pair[] {
  return Object.entries(value).flatMap(([key, inner]): Pair[] => {
    const name = prefix + key
    if (Array.isArray(inner)) {
      return inner.flatMap((item: unknown, i): Pair[] => typeof item === 'object' && item !== null ? flatten(item, `${name}[${i}].`) : [[`${name}[${i}]`, item]])
    }
    return typeof inner === 'object' && inner !== null ? flatten(inner as object, `${name}.`) : [[name, inner]]
  })
}

export function namespaceConfigPairs (config: NamespaceConfig): Pair[] {
  const { name: _, 'storage-engine': { type, ...storage }, ...rest } = config
  return [...flatten(rest), ['storage-engine', type], ...flatten(storage, 'storage-engine.')]
}

const getConfig: InfoCommand = (node, call) => {
  const context = call.parameters.get('context')
  const { service, network, logging, 'mod-lua': lua, namespaces } = node.config
  switch (context) {
    case undefined:
      return pairs([...flatten(service), ...flatten(network), ...flatten(logging, 'logging.'), ...flatten(lua, 'mod-lua.')])
    case 'service':
      return pairs(flatten(service))
    case 'network':
      return pairs(flatten(network))
    case 'logging':
      return pairs(flatten(logging))
    case 'mod-lua':
      return pairs(flatten(lua))
    case 'security':
      return 'enable-security=false'
    case 'namespace': {
      const id = call.parameters.need('id', { aliases: ['namespace'], code: ResultCode.NAMESPACE })
      const config = namespaces.find((namespace) => namespace.name === id)
      if (config === undefined) throw new InfoError(ResultCode.NAMESPACE, 'namespace not found on node')
      return pairs(namespaceConfigPairs(config))
    }
    case 'xdr':
      return xdrConfig(node, call)
    default:
      throw new InfoError(ResultCode.PARAMETER, `unknown context '${context}'`)
  }
}

export const configCommands: Record<string, InfoCommand> = { 'get-config': getConfig }
