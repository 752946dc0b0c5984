// Statistics of the node, its namespaces and sets, under the names that tools and dashboards match on.

import type { EngineStats, OpenProgress, Statistic } from '../engine/native.js'
import type { NamespaceConfig } from '../../config/schema.js'
import type { IndexDescription } from '../node/secondary-indexes.js'
import { namespaceConfigPairs, setConfigPairs } from './config.js'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'
import { listedName, pairs } from './request.js'

type Pair = readonly [string, unknown]

/** Names of the store's counters that hold no `storage.` prefix elsewhere come as `storage-engine.<name>`. */
function namespaceStatistics (stats: EngineStats['namespaces'][string]): Pair[] {
  return Object.entries(stats).flatMap(([name, value]): Pair[] => {
    if (typeof value !== 'object') return [[name, value]]
    return Object.entries(value as Record<string, Statistic>).map(([inner, statistic]) => [`storage-engine.${inner}`, statistic] as const)
  })
}

function namespaceConfig (node: NodeView, name: string | undefined) {
  return node.runtimeConfig.current.namespaces.find((namespace) => namespace.name === name)
}

function setPairs (node: NodeView, config: NamespaceConfig, name: string, set: EngineStats['sets'][string][string], indexes: readonly IndexDescription[]): Pair[] {
  const own = indexes.filter(({ definition }) => definition.set === name)
  const isOfSet = ({ definition }: IndexDescription): boolean => definition['index-type'] === 'set'
  return [['objects', set.objects], ['tombstones', set.tombstones], ['data_used_bytes', set.data_used_bytes], ['truncate_lut', set.truncate_lut],
    ['sindexes', own.filter((index) => !isOfSet(index)).length],
    ['index_populating', [...own.filter(isOfSet).map(({ status }) => status), node.secondaryIndexes.describeSet(config.name, name)].some((status) => status?.state === 'building')],
    ['truncating', set.truncating], ...setConfigPairs(config, name)]
}

/** The secondary indexes of a namespace; none before it is open. */
function indexesOf ({ secondaryIndexes, ready }: NodeView, namespace: string): IndexDescription[] {
  return ready ? secondaryIndexes.describe(namespace) : []
}

/** How far opening the namespace is, or was. */
function progressPairs (progress: OpenProgress | undefined): Pair[] {
  if (progress === undefined) return []
  const { open_phase: phase, open_pct: pct, open_records: records, open_remaining_seconds: left } = progress
  return [['open_phase', phase], ['open_pct', pct], ['open_records', records], ...(left === null ? [] : [['open_remaining_seconds', left] as const])]
}

export const statisticsCommands: Record<string, InfoCommand> = {
  namespaces: (node) => node.runtimeConfig.current.namespaces.map(({ name }) => name).join(';'),

  statistics: (node) => {
    const stats = node.engine.stats()
    const total = (name: string) => Object.values(stats.namespaces).reduce((sum, namespace) => sum + Number(namespace[name] ?? 0), 0)
    const memory = process.memoryUsage()
    return pairs([
      ['cluster_size', 1], ['cluster_key', node.nodeId.slice(-12)], ['cluster_principal', node.nodeId], ['cluster_integrity', true],
      ['cluster_is_member', true], ['uptime', Math.floor((Date.now() - node.startedAt) / 1000)],
      ['objects', total('objects')], ['tombstones', total('tombstones')],
      ['heap_allocated_kbytes', Math.floor(memory.heapUsed / 1024)], ['process_rss_kbytes', Math.floor(memory.rss / 1024)],
      ['network_loop', node.listening.networkLoop],
      ...Object.entries(stats.service)
    ])
  },

  namespace: (node, call) => {
    const [name] = call.path
    const config = namespaceConfig(node, name)
    if (config === undefined) return 'type=unknown'
    const all = node.engine.stats()
    const stats = all.namespaces[config.name] ?? {}
    return pairs([
      ...progressPairs(all.opening[config.name]), ['ns_cluster_size', 1], ['effective_replication_factor', 1], ...namespaceStatistics(stats),
      ['master_objects', stats['objects'] ?? 0], ['prole_objects', 0], ['migrate_tx_partitions_remaining', 0], ['migrate_rx_partitions_remaining', 0],
      ['dead_partitions', 0], ['unavailable_partitions', 0], ...namespaceConfigPairs(config)
    ])
  },

  sets: (node, call) => {
    const [wanted, set] = call.path
    const { sets } = node.engine.stats()
    const configs = wanted === undefined ? node.runtimeConfig.current.namespaces : node.runtimeConfig.current.namespaces.filter(({ name }) => name === wanted)
    if (configs.length === 0) return 'ns_type=unknown'
    if (set !== undefined) {
      const found = Object.entries(sets[wanted ?? ''] ?? {}).find(([name]) => name === set || listedName(name) === set)
      return found === undefined ? '' : `${pairs(setPairs(node, configs[0]!, ...found, indexesOf(node, configs[0]!.name)), ':')};`
    }
    return configs.flatMap((config) => {
      const indexes = indexesOf(node, config.name)
      return Object.entries(sets[config.name] ?? {}).map(([name, stats]) => `${pairs([['ns', config.name], ['set', listedName(name)], ...setPairs(node, config, name, stats, indexes)], ':')};`)
    }).join('')
  },
}
