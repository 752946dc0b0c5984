// Builds the native workspace (release) and the TypeScript tree. Plain JavaScript, since nothing is built yet
// when it runs. `--quiet` prints only what fails; both compilers are incremental, so a second run is short.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const quiet = process.argv.includes('--quiet')

function fail (message) {
  console.error(`perigee: ${message}`)
  process.exit(1)
}

function run (title, command, args, cwd) {
  const started = Date.now()
  if (!quiet) console.error(`perigee: ${title} ...`)
  const result = spawnSync(command, args, { cwd, stdio: ['ignore', quiet ? 'pipe' : 'inherit', quiet ? 'pipe' : 'inherit'] })
  if (result.error !== undefined || result.status !== 0) {
    if (quiet) {
      process.stderr.write(result.stdout ?? '')
      process.stderr.write(result.stderr ?? '')
    }
    fail(`${title} failed (${result.error?.message ?? `exit ${result.status}`})`)
  }
  if (!quiet) console.error(`perigee: ${title} done in ${((Date.now() - started) / 1000).toFixed(1)} s`)
}

if (Number(process.versions.node.split('.')[0]) < 20) {
  fail(`Node.js 20 or newer is needed, this is ${process.version}; see https://nodejs.org`)
}
if (spawnSync('cargo', ['--version'], { stdio: 'ignore' }).status !== 0) {
  fail('a Rust toolchain is needed to build the engine: install it from https://rustup.rs (or your distribution\'s "cargo", 1.88 or newer) and run this again')
}

run('building the engine (cargo build --release)', 'cargo',
  ['build', '--release', '--locked', '-p', 'perigee-binding', '-p', 'perigee-bench', ...(quiet ? ['--quiet'] : [])],
  join(root, 'native'))
run('compiling TypeScript', process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json'], root)
