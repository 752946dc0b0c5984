// `perigee serve`: a node from its configuration to its last byte, with the signals that end it.

import type { Logger } from 'pino'
import type { NodeConfig } from '../../config/schema.js'
import { addon } from '../engine/addon.js'
import type { NativeLogEvent } from '../engine/native.js'
import { createLogger } from '../observe/log.js'
import { Node } from './node.js'

/** Runs a node until SIGTERM or SIGINT, then drains and closes it. A second signal ends the process at once. */
export async function runNode (config: NodeConfig): Promise<void> {
  const log = createLogger(config.logging)
  if (config.logging.level !== 'silent') {
    const level = config.logging.level === 'fatal' ? 'error' : config.logging.level
    addon().setLogger(level, (event) => { logNative(log, event) })
  }
  const ended = endSignal()
  const node = await Node.create(config, log)
  try {
    const listening = node.listen()
    const about = { node: node.nodeId, ...listening, namespaces: config.namespaces.map(({ name }) => name) }
    log.info(about, 'listening')
    // A signal ends a start that takes long, too.
    const opened = node.open()
    opened.catch(() => {})
    const early = await Promise.race([opened, ended])
    if (early === undefined) log.info(about, 'ready')
    const signal = await ended
    log.info({ signal }, 'stopping')
    process.once(signal, () => { process.exit(1) })
  } catch (error) {
    // What went wrong first is what its user has to hear.
    await node.close().catch((closeError: unknown) => { log.error({ err: closeError }, 'the node did not close cleanly') })
    throw error
  }
  await node.close()
  log.info('stopped')
}

function endSignal (): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, resolve)
  })
}

function logNative (log: Logger, event: NativeLogEvent): void {
  const fields = { context: event.target.replace(/^perigee_/, '').replaceAll('::', '.'), ...JSON.parse(event.fields) as object }
  log[event.level](fields, event.message)
}
