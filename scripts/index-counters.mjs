// What a lookup in the primary index costs the processor: instructions and cache misses, a lookup, at several sizes.
// The example program index_probe runs with and without lookups, and the difference is theirs. Counters of the processor are
// used where it lets us at them (perf); elsewhere, as on most virtual machines, cachegrind simulates its caches.
//
//   npm run bench:index-counters [-- MILLIONS ...]      default: 1 5 20, which takes 1.3 GB and some minutes
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const native = join(dirname(fileURLToPath(import.meta.url)), '..', 'native')
const program = join(native, 'target/release/examples/index_probe')
const LOOKUPS = 1 << 20

/** What cachegrind simulates: caches of one processor, so that figures of different machines compare. */
const CACHES = ['--D1=49152,12,64', '--LL=1048576,16,64']

const PERF_EVENTS = ['cycles', 'instructions', 'L1-dcache-load-misses', 'cache-misses']

function run (command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26, ...options })
  return result.error === undefined && result.status === 0 ? result : undefined
}

/** Counts by name, of one run of the program. */
function countWithPerf (args) {
  const result = run('perf', ['stat', '-x', ',', '-e', PERF_EVENTS.join(','), program, ...args])
  const counts = {}
  for (const line of (result?.stderr ?? '').split('\n')) {
    const [value, , event] = line.split(',')
    const name = PERF_EVENTS.find((wanted) => event?.startsWith(wanted))
    if (name !== undefined && /^\d+$/.test(value)) counts[name] = Number(value)
  }
  return PERF_EVENTS.every((name) => name in counts) ? counts : undefined
}

function countWithCachegrind (args) {
  const result = run('valgrind', ['--tool=cachegrind', '--cache-sim=yes', ...CACHES, '--cachegrind-out-file=/dev/null', program, ...args])
  const count = (pattern) => {
    const found = pattern.exec(result?.stderr ?? '')
    return found === null ? undefined : Number(found[1].replaceAll(',', ''))
  }
  const counts = {
    instructions: count(/I\s+refs:\s+([\d,]+)/),
    'lines not in 48 KiB': count(/D1\s+misses:\s+([\d,]+)/),
    'lines not in 1 MiB': count(/LLd\s+misses:\s+([\d,]+)/)
  }
  return Object.values(counts).includes(undefined) ? undefined : counts
}

const sizes = process.argv.slice(2).length > 0 ? process.argv.slice(2).map(Number) : [1, 5, 20]
if (sizes.some((millions) => !(millions > 0))) {
  console.error('index-counters: the arguments are numbers of millions of records')
  process.exit(2)
}
const built = spawnSync('cargo', ['build', '--quiet', '--release', '--locked', '-p', 'perigee-engine', '--example', 'index_probe'], { cwd: native, stdio: 'inherit' })
if (built.status !== 0) process.exit(1)

const methods = [['perf', countWithPerf], ['cachegrind', countWithCachegrind]]
const method = methods.find(([, count]) => count(['1000', String(LOOKUPS >> 4), 'hit']) !== undefined)
if (method === undefined) {
  console.error('index-counters: neither perf with hardware counters nor valgrind works here (apt install valgrind)')
  process.exit(1)
}
const [name, count] = method
console.log(`by ${name}, a lookup, of ${LOOKUPS} random ones`)
for (const millions of sizes) {
  const records = String(millions * 1e6)
  const idle = count([records, String(LOOKUPS), 'none'])
  for (const kind of ['hit', 'miss']) {
    const busy = count([records, String(LOOKUPS), kind])
    const each = Object.keys(busy).map((key) => `${key} ${((busy[key] - idle[key]) / LOOKUPS).toFixed(2)}`)
    console.log(`${String(millions).padStart(4)}M ${kind.padEnd(5)} ${each.join('  ')}`)
  }
}
