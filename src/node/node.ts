// One running node: listen -> open -> drain -> close. It decides; records are the engine's.

import type { Logger } from 'pino'
import type { NamespaceConfig, NodeConfig } from '../../config/schema.js'
import { UdfHost } from '../../udf/host.js'
import { addonPath } from '../engine/addon.js'
import { Engine, EngineError } from '../engine/engine.js'
import type { InfoRequest, Listening } from '../engine/native.js'
import { LatencyWindow } from '../info/latencies.js'
import type { NodeView } from '../info/node-view.js'
import { answerInfo } from '../info/registry.js'
import { UserAgents } from '../info/user-agents.js'
import { clusterDestination } from '../xdr/destination.js'
import { Xdr } from '../xdr/xdr.js'
import { nodeIdentity } from './identity.js'
import { RuntimeConfig } from './runtime-config.js'
import { SecondaryIndexes } from './secondary-indexes.js'
import { SystemMetadata } from './system-metadata.js'
import { Truncations, truncationsOf } from './truncations.js'

/** Bits of the 4096 partitions. */
const PARTITION_BITMAP_BYTES = 512

/** The partition generation of a node that has no place in the cluster yet. */
const NOT_IN_THE_CLUSTER = -1

/** A node alone is master of every partition, and stays so. */
const OWNERSHIP_EPOCH = 1

export class Node {
  readonly #log: Logger
  readonly #nodeId: string
  readonly #engine: Engine
  readonly #truncations: Truncations
  readonly #secondaryIndexes: SecondaryIndexes
  readonly #runtimeConfig: RuntimeConfig
  readonly #udf: UdfHost
  readonly #xdr: Xdr
  readonly #masters = Buffer.alloc(PARTITION_BITMAP_BYTES, 0xff)
  #view: NodeView | undefined
  #opening: Promise<void> | undefined
  #drained: Promise<void> | undefined
  #closed: Promise<void> | undefined

  private constructor (config: NodeConfig, log: Logger, nodeId: string, engine: Engine, metadata: SystemMetadata) {
    this.#log = log
    this.#nodeId = nodeId
    this.#engine = engine
    this.#truncations = new Truncations(metadata, engine.native)
    this.#secondaryIndexes = new SecondaryIndexes(metadata, engine)
    this.#runtimeConfig = new RuntimeConfig(config, engine.native)
    this.#udf = new UdfHost({
      native: engine.native,
      handle: engine.native.handle,
      addonPath,
      workers: config['mod-lua'].workers,
      workDirectory: config.service['work-directory'],
      timeLimitMs: config['mod-lua']['time-limit-ms'],
      callMemoryBytes: config['mod-lua']['call-memory'],
      isDisabled: config.service['disable-udf-execution'],
      logger: log.child({ context: 'udf' })
    })
    this.#xdr = new Xdr({
      native: engine.native,
      config: config.xdr,
      workDirectory: config.service['work-directory'],
      log: log.child({ context: 'xdr' }),
      destination: (dc, dcLog) => clusterDestination(dc, dcLog, config.network.tls)
    })
  }

  /** A node that nobody can reach yet. Rejects with what is wrong. */
  static async create (config: NodeConfig, log: Logger): Promise<Node> {
    const nodeId = await nodeIdentity(config.service['work-directory'], config.service['node-id'])
    const metadata = await SystemMetadata.open(config.service['work-directory'])
    const engine = Engine.create(config, (namespace) => truncationsOf(metadata, namespace))
    return new Node(config, log, nodeId, engine, metadata)
  }

  /** Answers info commands; requests for records are refused until `open` has resolved. Throws when the port cannot be bound. */
  listen (): Listening {
    const listening = this.#engine.start((request) => { void this.#onInfo(request) })
    const latencies = new LatencyWindow(() => this.#engine.latencies())
    latencies.start()
    this.#view = {
      runtimeConfig: this.#runtimeConfig,
      nodeId: this.#nodeId,
      engine: this.#engine,
      truncations: this.#truncations,
      secondaryIndexes: this.#secondaryIndexes,
      userAgents: new UserAgents(),
      listening,
      latencies,
      udf: this.#udf,
      xdr: this.#xdr,
      ready: false,
      masters: Buffer.alloc(PARTITION_BITMAP_BYTES),
      partitionGeneration: NOT_IN_THE_CLUSTER,
      startedAt: Date.now()
    }
    return listening
  }

  /**
   * Opens namespaces (rebuilding their indexes), last-ship times and modules, then serves; secondary indexes may still be being built then. Rejects with what is
   * wrong, or when the node is closed meanwhile.
   */
  open (): Promise<void> {
    this.#opening ??= this.#open()
    return this.#opening
  }

  async #open (): Promise<void> {
    await this.#engine.open()
    await this.#xdr.open()
    const namespaces = this.#runtimeConfig.current.namespaces.map(({ name }) => name)
    for (const name of namespaces) this.#engine.native.setOwnership(OWNERSHIP_EPOCH, name, this.#masters)
    this.#secondaryIndexes.restore(new Set(namespaces), ({ namespace, definition }, error) => {
      this.#log.error({ err: error, namespace, index: definition.name }, 'a secondary index cannot be made: queries by it are refused')
    })
    for (const config of this.#runtimeConfig.current.namespaces) this.#indexSets(config)
    await this.#udf.open()
    if (this.#closed !== undefined || this.#drained !== undefined) throw new EngineError('PERIGEE_CLOSED', 'the node was stopped while it opened')
    this.#engine.serve()
    this.#view = { ...this.#view!, ready: true, masters: this.#masters, partitionGeneration: OWNERSHIP_EPOCH }
    this.#xdr.start()
  }

  /** One that cannot be made keeps the node from nothing: queries of the set look at every record, as without it. */
  #indexSets (config: NamespaceConfig): void {
    try {
      this.#secondaryIndexes.indexSets(config)
    } catch (error) {
      this.#log.error({ err: error, namespace: config.name }, 'enable-index: the index of a set cannot be made')
    }
  }

  get nodeId (): string {
    return this.#nodeId
  }

  /** Ships what is in flight, finishes requests under way, makes everything durable. */
  drain (): Promise<void> {
    this.#drained ??= (async () => {
      await this.#endOpening()
      try {
        await this.#xdr.drain()
      } finally {
        await this.#engine.native.drain()
      }
    })()
    return this.#drained
  }

  /** Files are let go of only when nobody opens them any more. */
  async #endOpening (): Promise<void> {
    if (this.#opening === undefined) return
    this.#engine.native.cancelOpen()
    await this.#opening.catch(() => {})
  }

  /** Drains and lets go of everything. A second call waits for the first. */
  close (): Promise<void> {
    this.#closed ??= this.#closeAll()
    return this.#closed
  }

  /** Every part is closed, whichever of them fails; the first error is the one that is told. */
  async #closeAll (): Promise<void> {
    const errors: unknown[] = []
    this.#view?.latencies.stop()
    for (const step of [() => this.drain(), () => this.#udf.close(), () => this.#xdr.close(), () => this.#engine.native.close()]) {
      try {
        await step()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw EngineError.from(errors[0])
  }

  async #onInfo (request: InfoRequest): Promise<void> {
    const failed = (error: unknown) => { this.#log.error({ err: error, peer: request.peer }, 'an info command failed') }
    try {
      const view = this.#view
      const reply = view === undefined ? '' : await answerInfo(view, request.text, failed)
      this.#engine.native.answerInfo(request.id, reply)
    } catch (error) {
      // The node may have been closed meanwhile; nobody waits for the answer then.
      failed(error)
    }
  }
}
