import { loadConfig } from '../../../config/load.js'
import { UsageError } from '../io.js'

/** Runs a node; resolves when it was told to end and has ended. */
export async function serve (file: string): Promise<void> {
  const config = await loadConfig(file)
  // The node is its own room, and the only one that needs the native engine.
  const { runNode } = await import('../../node/run.js')
  await runNode(config)
}

export async function startQuickstart (options: { once?: boolean, directory: string, basePort: string }): Promise<void> {
  if (!/^\d+$/.test(options.basePort)) throw new UsageError(`${JSON.stringify(options.basePort)} is not a port`)
  const { quickstart } = await import('../../quickstart/main.js')
  await quickstart({ once: options.once === true, directory: options.directory, basePort: Number(options.basePort) })
}
