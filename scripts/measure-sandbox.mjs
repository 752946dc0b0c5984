// What hostile Lua functions do to others: for each attack of test/support/lua-attacks.ts, how long it took and how long plain reads and
// harmless calls beside it took. `--workers=N` sets the Lua threads (default 1 and 2, one after the other); names select attacks.
//
// Each figure is of one connection that sends one request after the other, so a blocked worker shows as one long call, not as many.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const from = (path) => import(join(root, 'dist', path))
const { ATTACKS, attackModule, BYSTANDER_MODULE } = await from('test/support/lua-attacks.js')
const { NodeProcess } = await from('test/support/node-process.js')
const { connectOfficial, loadOfficialClient } = await from('test/support/official-client.js')

const TIME_LIMIT_MS = 500
/** Beside nothing, for comparison. */
const QUIET_MS = 2000
const { values, positionals } = parseArgs({ allowPositionals: true, options: { workers: { type: 'string' } } })
const selected = positionals.length === 0 ? ATTACKS : ATTACKS.filter(({ name }) => positionals.includes(name))
const aerospike = loadOfficialClient()
const keyOf = (name) => new aerospike.Key('test', 'sandbox', name)

function figures (times) {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
  return [at(0.5), at(0.99), at(1)].map((ms) => ms.toFixed(1).padStart(8)).join('')
}

async function beside (client, attack) {
  let isOver = false
  const started = performance.now()
  const ended = attack.then(() => 'succeeded', (error) => error.message).then((message) => {
    isOver = true
    return { message, ms: performance.now() - started }
  })
  const loop = async (request) => {
    const times = []
    do {
      const before = performance.now()
      await request()
      times.push(performance.now() - before)
    } while (!isOver)
    return times
  }
  const [reads, calls, { message, ms }] = await Promise.all([
    loop(() => client.get(keyOf('plain'))),
    loop(() => client.apply(keyOf('touched'), { module: 'bystander', funcname: 'touch', args: [1] }, { totalTimeout: 20_000 })),
    ended
  ])
  return { reads, calls, message, ms }
}

async function put (node, name, source) {
  const content = Buffer.from(source).toString('base64')
  const reply = await node.info(`udf-put:filename=${name};content=${content};content-len=${content.length};udf-type=LUA;`)
  if (reply !== 'ok') throw new Error(`${name}: ${reply}`)
}

for (const workers of values.workers === undefined ? [1, 2] : [Number(values.workers)]) {
  const node = await NodeProcess.start({ name: 'sandbox', modLua: { workers, 'time-limit-ms': TIME_LIMIT_MS } })
  try {
    const client = await connectOfficial(node.port)
    await put(node, 'attacks.lua', attackModule())
    await put(node, 'bystander.lua', BYSTANDER_MODULE)
    await client.put(keyOf('plain'), { a: 1 })
    console.log(`\n${workers} worker(s), time limit ${TIME_LIMIT_MS} ms; milliseconds p50, p99, max`)
    console.log(`${'attack'.padEnd(32)}${'took'.padStart(8)}  ${'plain reads'.padStart(24)}  ${'harmless calls'.padStart(24)}  ended with`)
    const row = (name, { reads, calls, message, ms }) => {
      console.log(`${name.padEnd(32)}${ms.toFixed(0).padStart(8)}  ${figures(reads)}  ${figures(calls)}  ${message.split('\n')[0].slice(-60)}`)
    }
    for (let round = 0; round < 2; round++) {
      const quiet = await beside(client, new Promise((resolve) => { setTimeout(resolve, QUIET_MS) }))
      if (round === 1) row('(none)', { ...quiet, message: '' })
    }
    for (const { name } of selected) {
      await client.put(keyOf(name), { a: 'before' })
      row(name, await beside(client, client.apply(keyOf(name), { module: 'attacks', funcname: name, args: [] }, { totalTimeout: 20_000 })))
    }
    client.close()
  } finally {
    await node.dispose()
  }
}
aerospike.releaseEventLoop()
