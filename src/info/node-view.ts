import type { UdfHost } from '../../udf/host.js'
import type { Engine } from '../engine/engine.js'
import type { Listening } from '../engine/native.js'
import type { RuntimeConfig } from '../node/runtime-config.js'
import type { SecondaryIndexes } from '../node/secondary-indexes.js'
import type { LatencyWindow } from './latencies.js'
import type { Truncations } from '../node/truncations.js'
import type { Xdr } from '../xdr/xdr.js'
import type { UserAgents } from './user-agents.js'

/** What info commands may see of the node that they run on. */
export interface NodeView {
  readonly runtimeConfig: RuntimeConfig
  /** Up to 16 hexadecimal digits, upper case. */
  readonly nodeId: string
  readonly engine: Engine
  readonly listening: Listening
  readonly latencies: LatencyWindow
  readonly truncations: Truncations
  readonly secondaryIndexes: SecondaryIndexes
  readonly userAgents: UserAgents
  readonly udf: UdfHost
  readonly xdr: Xdr
  /** False while the namespaces are being opened: requests for records are refused. */
  readonly ready: boolean
  /** 512 bytes: the partitions that this node is master of. */
  readonly masters: Buffer
  /** Grows with each change of partition ownership; -1 until the node is ready, so that clients keep away. */
  readonly partitionGeneration: number
  /** Milliseconds since the Unix epoch. */
  readonly startedAt: number
}
