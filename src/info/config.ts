// Configuration as it is in force, in the flat `key=value;...` layout of tools.

import { setDefaults, type NamespaceConfig } from '../../config/schema.js'
import { ResultCode } from '../engine/constants.js'
import { EngineError } from '../engine/engine.js'
import { ConfigChangeError } from '../node/runtime-config.js'
import { namespaceOf } from './limits.js'
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
  const { name: _, sets: __, 'storage-engine': { type, ...storage }, ...rest } = config
  return [...flatten(rest), ['storage-engine', type], ...flatten(storage, 'storage-engine.')]
}

/** Clients name sets as they like; what a set has that the configuration does not name depends on no name. */
const ANY_SET = 'any'

/** The settings of a set, whether it is named in the configuration or not. */
export function setConfigPairs (config: NamespaceConfig, name: string): Pair[] {
  const { name: _, ...settings } = config.sets.find((set) => set.name === name) ?? setDefaults(ANY_SET)
  return flatten(settings)
}

const getConfig: InfoCommand = (node, call) => {
  const context = call.parameters.get('context')
  const { service, network, logging, 'mod-lua': lua } = node.runtimeConfig.current
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
      const config = namespaceOf(node, call, 'id')
      const set = call.parameters.get('set')
      return pairs(set === undefined ? namespaceConfigPairs(config) : setConfigPairs(config, set))
    }
    case 'xdr':
      return xdrConfig(node, call)
    default:
      throw new InfoError(ResultCode.PARAMETER, `unknown context '${context}'`)
  }
}

const setConfig: InfoCommand = (node, call) => {
  const context = call.parameters.need('context')
  if (context !== 'namespace') throw new InfoError(ResultCode.PARAMETER, `nothing of context '${context}' can be changed while the node runs`)
  const { name } = namespaceOf(node, call, 'id')
  const set = call.parameters.get('set')
  const values = call.parameters.others('context', 'id', 'namespace', 'ns', 'set')
  if (values.size === 0) throw new InfoError(ResultCode.PARAMETER, 'no key to change')
  try {
    node.runtimeConfig.setNamespace(name, set, values, (changed) => {
      // While the namespace is not open yet, its opening sees to it.
      if (values.has('enable-index') && node.secondaryIndexes.hasSetsOf(name)) node.secondaryIndexes.indexSets(changed)
    })
  } catch (error) {
    if (error instanceof ConfigChangeError) throw new InfoError(ResultCode.PARAMETER, error.message)
    if (error instanceof EngineError && error.code === 'PERIGEE_LIMIT') throw new InfoError(ResultCode.SINDEX_MAX_COUNT, error.message)
    throw error
  }
  return 'ok'
}

export const configCommands: Record<string, InfoCommand> = { 'get-config': getConfig, 'set-config': setConfig }
