// Where the package lies, from any compiled file of it: dist/ mirrors the source tree, so the depth alone does not tell.
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

function findPackageRoot (from: string): string {
  for (let directory = from; ; directory = dirname(directory)) {
    const manifest = join(directory, 'package.json')
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string }
      if (name === 'perigee') return directory
    }
    if (dirname(directory) === directory) throw new Error(`no package.json of perigee above ${from}`)
  }
}

/** The folder that holds package.json of Perigee. */
export const packageRoot = findPackageRoot(dirname(fileURLToPath(import.meta.url)))

/** What a user runs: `node bin/perigee.js`. */
export const perigeeProgram = join(packageRoot, 'bin/perigee.js')
