import { loadConfig } from '../../../config/load.js'
import type { Io } from '../io.js'

/** Rejects with every error in the file; prints a line, or with `--json` the whole configuration, when there is none. */
export async function checkConfig (io: Io, file: string, options: { json?: boolean }): Promise<void> {
  const config = await loadConfig(file)
  if (options.json === true) io.out(`${JSON.stringify(config, null, 2)}\n`)
  else io.out(`${file}: valid; namespaces ${config.namespaces.map(({ name }) => name).join(', ')}${datacenters(config.xdr.dcs)}\n`)
}

function datacenters (dcs: ReadonlyArray<{ name: string }>): string {
  return dcs.length === 0 ? '' : `; ships to ${dcs.map(({ name }) => name).join(', ')}`
}
