// Which partitions are whose, as clients read it.

import { ResultCode } from '../engine/constants.js'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'
import { InfoError } from './request.js'

/** The regime of an available (not strongly consistent) namespace. */
const REGIME = 0

/** Hexadecimal name of the present member list: a cluster of one is named after its node and ownership. */
function clusterKey (node: NodeView): string {
  return `${node.nodeId}${node.partitionGeneration.toString(16)}`.slice(-12)
}

function bitmaps (node: NodeView, head: string): string {
  const masters = node.masters.toString('base64')
  return node.runtimeConfig.current.namespaces.map(({ name }) => `${name}:${head}${masters}`).join(';')
}

export const partitionCommands: Record<string, InfoCommand> = {
  'partition-generation': (node) => String(node.partitionGeneration),
  'rebalance-generation': (node) => String(node.partitionGeneration),
  // One column: with a single node every partition has one copy, whatever the replication factor.
  replicas: (node) => bitmaps(node, `${REGIME},1,`),
  'replicas-all': (node) => bitmaps(node, '1,'),
  'replicas-master': (node) => `${bitmaps(node, '')};`,
  'rack-ids': (node) => node.runtimeConfig.current.namespaces.map(({ name }) => `${name}:0`).join(';'),
  'cluster-stable': (node, call) => {
    const size = call.parameters.get('size')
    if (size !== undefined && size !== '1') throw new InfoError(ResultCode.CLUSTER_KEY_MISMATCH, 'cluster not specified size')
    return clusterKey(node)
  },
  'get-sl': (node) => node.nodeId
}
