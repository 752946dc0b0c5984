// How long a node takes to be back: from the start of its process to the first answer to a request for a record, after a polite stop, after
// kill -9, and with nothing left in shared memory.
//
//   npm run bench:restart [-- --records 1000000 --object-size 100 --directory DIR --rounds 3]
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from '../dist/src/client/client.js'
import { ScratchNode, bench, freePort, main, median, options, root, runs, scratchDirectory, sharedDirectory } from './scratch-node.mjs'

const USAGE = 'npm run bench:restart [-- --records N --object-size BYTES --directory DIR --rounds N]'
const OVERHEAD_BYTES = 80
const MiB = 2 ** 20

/** A whole request of a client that has just been started itself, connecting included. */
async function answers (port, key) {
  const client = await Client.connect({ hosts: [`127.0.0.1:${port}`], timeoutMs: 1000, connectTimeoutMs: 1000 })
  try {
    // A record that is not there yet is no answer: the node would have lost it.
    return await client.get({ namespace: 'test', set: 'bench', key }, { retriesMax: 0 }) ?? undefined
  } finally {
    await client.close()
  }
}

/** What the node logged about opening its namespace. */
function opened (log) {
  const lines = log.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line))
  return lines.findLast((line) => line.msg === 'namespace opened')
}

await main(async () => {
  const given = options(USAGE, { records: 1_000_000, 'object-size': 100, directory: tmpdir(), rounds: 3 })
  const directory = scratchDirectory(given.directory)
  const shared = sharedDirectory(directory)
  const bytes = Math.max(64 * MiB, Math.ceil(given.records * (given['object-size'] + OVERHEAD_BYTES) * 1.7 / MiB) * MiB)
  const port = await freePort()
  const config = (service) => `
service: { work-directory: ${join(directory, 'work')}${service} }
namespaces:
  - name: test
    stop-writes-used-pct: 95
    storage-engine: { type: device, files: [${join(directory, 'test.dat')}], filesize: ${bytes} }`
  let node = new ScratchNode(directory, port, config(`, shmem-directory: ${shared}`))
  const warm = runs(process.execPath, [join(root, 'bin/perigee.js'), 'config', 'check', node.configPath])
  if (!warm) node = new ScratchNode(directory, port, config(''))
  console.log(`${given.records} records of ${given['object-size']} bytes in ${directory}; medians of ${given.rounds}`)
  if (!warm) console.log('this build keeps no index in shared memory: every start is a cold one')

  await node.start()
  await bench(['insert', '--port', String(port), '--keys', String(given.records), '--object-size', String(given['object-size']), '--connections', '64'])
  const cases = [['SIGTERM', 'after SIGTERM', false], ['SIGKILL', 'after kill -9', false], ['SIGTERM', 'without shared memory', true]]
  const results = cases.map(() => [])
  for (let round = 0; round < given.rounds; round++) {
    for (const [i, [signal, , forget]] of cases.entries()) {
      await node.end(signal)
      if (forget) rmSync(shared, { recursive: true, force: true })
      const key = Math.floor(given.records * (round + 1) / (given.rounds + 1))
      const ms = await node.until(node.begin(), () => answers(port, key))
      results[i].push({ ms, opened: opened(node.log) })
    }
  }
  for (const [i, [, name]] of cases.entries()) {
    const ms = median(results[i].map((it) => it.ms))
    const openMs = median(results[i].map((it) => it.opened?.elapsed_ms ?? NaN))
    const rate = openMs > 0 ? `, ${(given.records / openMs / 1000).toFixed(2)} million records/s` : ''
    const start = results[i][0].opened?.start
    console.log(`${name.padEnd(24)} first answer after ${(ms / 1000).toFixed(2)} s; namespace opened in ${(openMs / 1000).toFixed(2)} s${rate}${start === undefined ? '' : ` (${start})`}`)
  }
  await node.end('SIGTERM')
})
