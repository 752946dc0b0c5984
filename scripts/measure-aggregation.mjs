// A stream function over many records, on one node in memory: the sum of an integer bin of all records, found by a range of a secondary index or by a
// scan. Prints records a second, and where the time went: of the processors' time the service threads and the Lua workers, and of the workers' time the virtual
// machine, the codec and what is between them, by the profiler of Node.js in a run of its own.
//
//   npm run bench:aggregation [-- --keys 1000000 --rounds 5 --workers 2]
import { readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from '../dist/src/client/index.js'
import { ScratchNode, bench, freePort, main, median, options, scratchDirectory, sharedDirectory } from './scratch-node.mjs'

const USAGE = 'npm run bench:aggregation [-- --keys N --rounds N --workers N]'
const BIN = 'n'
const SET = 'bench'
const CLOCK_TICKS = 100

const MODULE = `
function sum(s, bin)
  return s : map(function(rec) return rec[bin] end) : reduce(function(a, b) return a + b end)
end

function average(s, bin)
  local function gather(state, rec)
    state.sum = state.sum + rec[bin]
    state.count = state.count + 1
    return state
  end
  local function combine(a, b) return map { sum = a.sum + b.sum, count = a.count + b.count } end
  return s : aggregate(map { sum = 0, count = 0 }, gather) : reduce(combine) : map(function(state) return state.sum / state.count end)
end

function count(s)
  return s : aggregate(0, function(n) return n + 1 end) : reduce(math.sum)
end
`

/** What a function of the workers' code belongs to; the first that fits. */
const PARTS = [
  // The call into the engine has no frame of its own.
  ['waiting and the engine', (name, file) => name === 'run' && /udf\/worker-loop\.js$/.test(file)],
  ['garbage collection', (name) => name === '(garbage collector)'],
  ['codec', (_, file) => /udf\/(lane|particle|byte-writer|msgpack|stream-record|script-record|lua-integer)\.js$/.test(file)],
  ['streams', (_, file) => /udf\/(stream-runner|stream-api|task-runner|worker-loop|statistics)\.js$/.test(file)],
  ['virtual machine', (_, file) => /fengari|udf\//.test(file)],
  ['other', () => true]
]

await main(async () => {
  const given = options(USAGE, { keys: 1_000_000, rounds: 5, workers: 2 })
  const run = async (nodeArguments, work) => {
    const directory = scratchDirectory(tmpdir())
    const node = new ScratchNode(directory, await freePort(), `
service: { work-directory: ${directory}/work, shmem-directory: ${sharedDirectory(directory)} }
mod-lua: { workers: ${given.workers} }
namespaces: [{ name: test, storage-engine: { type: memory, data-size: 4G } }]`, { nodeArguments: nodeArguments.map((it) => it.replace('DIRECTORY', directory)) })
    await node.start()
    await bench(['query', '--preload', '--records', '10', '--port', String(node.port), '--keys', String(given.keys), '--duration', '1s', '--warmup', '0s'])
    const client = await Client.connect({ hosts: [{ host: '127.0.0.1', port: node.port }], timeoutMs: 10_000 })
    const content = Buffer.from(MODULE).toString('base64')
    const put = await client.info(`udf-put:filename=measured.lua;content=${content};content-len=${content.length};udf-type=LUA;`)
    if (put !== 'ok') throw new Error(`udf-put: ${put}`)
    const result = await work(client, node)
    await client.close()
    await node.end('SIGTERM')
    return { result, directory }
  }
  const range = { set: SET, where: { bin: BIN, from: 0, to: given.keys - 1 } }
  const scan = { set: SET }
  const aggregate = async (client, name, options) => {
    const values = []
    const started = performance.now()
    for await (const value of client.aggregate('test', 'measured', name, [BIN], options)) values.push(value)
    const seconds = (performance.now() - started) / 1000
    if (values.length !== 1) throw new Error(`${name} made ${values.length} values`)
    return { value: values[0], seconds }
  }
  const line = (title, text) => console.log(`${title.padEnd(44)} ${text}`)

  await run([], async (client, node) => {
    const cases = [['sum, by a range of all', 'sum', range], ['sum, by a scan', 'sum', scan], ['average, by a scan', 'average', scan], ['count, by a scan', 'count', scan]]
    const rounds = new Map(cases.map(([title]) => [title, []]))
    for (let round = -1; round < given.rounds; round++) {
      for (const [title, name, options] of cases) {
        const before = threadSeconds(node.pid)
        const { value, seconds } = await aggregate(client, name, options)
        if (name === 'count' && value !== given.keys) throw new Error(`${value} of ${given.keys} records`)
        // The first round is a warm-up.
        if (round >= 0) rounds.get(title).push({ seconds, threads: difference(threadSeconds(node.pid), before) })
      }
    }
    for (const [title, done] of rounds) {
      const seconds = median(done.map((it) => it.seconds))
      const cpu = (kind) => median(done.map((it) => it.threads.get(kind) ?? 0))
      line(title, `${(given.keys / seconds).toFixed(0)} records/s; CPU s per million: workers ${(cpu('workers') * 1e6 / given.keys).toFixed(2)}, service threads ${(cpu('service') * 1e6 / given.keys).toFixed(2)}`)
    }
  })

  const { directory } = await run(['--cpu-prof', '--cpu-prof-interval=200', '--cpu-prof-dir=DIRECTORY/profiles'], async (client) => {
    for (let round = 0; round < given.rounds; round++) await aggregate(client, 'sum', range)
  })
  const shares = sharesOf(join(directory, 'profiles'))
  const busy = [...shares].filter(([part]) => !/^waiting/.test(part))
  const total = busy.reduce((sum, [, it]) => sum + it.microseconds, 0)
  line('of the workers\' busy time (sum, by a range)', busy.map(([part, it]) => `${part} ${(100 * it.microseconds / total).toFixed(0)}%`).join(', '))
  const functions = busy.flatMap(([, it]) => [...it.functions]).sort(([, a], [, b]) => b - a).slice(0, 12)
  for (const [name, microseconds] of functions) line(`  ${name}`, `${(100 * microseconds / total).toFixed(1)}%`)
})

/** Processor seconds of the process's threads by what they are. */
function threadSeconds (pid) {
  const seconds = new Map()
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8')
      const end = stat.lastIndexOf(')')
      const name = stat.slice(stat.indexOf('(') + 1, end)
      const fields = stat.slice(end + 2).split(' ')
      // Threads of Node.js have no names of their own, and its others have next to nothing to do.
      const kind = name.startsWith('service-') ? 'service' : 'workers'
      seconds.set(kind, (seconds.get(kind) ?? 0) + (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS)
    } catch {
      // It has ended.
    }
  }
  return seconds
}

function difference (after, before) {
  return new Map([...after].map(([kind, seconds]) => [kind, seconds - (before.get(kind) ?? 0)]))
}

/** Self time of the workers' functions, by the part that they belong to. */
function sharesOf (directory) {
  const shares = new Map(PARTS.map(([part]) => [part, { microseconds: 0, functions: new Map() }]))
  for (const file of readdirSync(directory)) {
    const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(join(directory, file), 'utf8'))
    if (!nodes.some(({ callFrame }) => callFrame.url.endsWith('udf/worker-loop.js'))) continue
    const byId = new Map(nodes.map((node) => [node.id, node.callFrame]))
    samples.forEach((id, i) => {
      const { functionName, url, lineNumber } = byId.get(id)
      if (functionName === '(idle)' || functionName === '(root)') return
      const [part] = PARTS.find(([, fits]) => fits(functionName, url))
      const name = `${functionName || '(anonymous)'} ${url.split('/').slice(-2).join('/')}${url === '' ? '' : `:${lineNumber + 1}`}`
      const share = shares.get(part)
      share.microseconds += timeDeltas[i]
      share.functions.set(name, (share.functions.get(name) ?? 0) + timeDeltas[i])
    })
  }
  return shares
}
