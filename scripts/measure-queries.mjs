// Requests for many records, on one node in memory: batches of reads, queries by a secondary index, what the index costs, and what long queries
// do to the reads of single records.
//
//   npm run bench:queries [-- --keys 1000000 --seconds 5 --rounds 3 --connections 16]
import { tmpdir } from 'node:os'
import { infoOnce } from '../dist/src/client/index.js'
import { ScratchNode, bench, freePort, main, median, options, scratchDirectory, sharedDirectory } from './scratch-node.mjs'

const USAGE = 'npm run bench:queries [-- --keys N --seconds N --rounds N --connections N]'
/** Reads a second while queries run: far below what the node can do, so that its queue is not what is measured. */
const PACED_READS = 1000

await main(async () => {
  const given = options(USAGE, { keys: 1_000_000, seconds: 5, rounds: 3, connections: 16 })
  const directory = scratchDirectory(tmpdir())
  const node = new ScratchNode(directory, await freePort(), `
service: { work-directory: ${directory}/work, shmem-directory: ${sharedDirectory(directory)} }
namespaces: [{ name: test, storage-engine: { type: memory, data-size: 4G } }]`)
  await node.start()
  const common = ['--port', String(node.port), '--keys', String(given.keys), '--duration', `${given.seconds}s`, '--warmup', '1s']
  const rounds = async (args) => {
    const reports = []
    for (let round = 0; round < given.rounds; round++) reports.push(await bench([...args, ...common]))
    return (of) => median(reports.map(of))
  }
  const line = (title, text) => console.log(`${title.padEnd(44)} ${text}`)
  const records = (of) => `${of((it) => it.records_per_second).toFixed(0)} records/s, server ${of((it) => it.server_cpu_seconds_per_million_records).toFixed(2)} CPU s per million`

  await bench(['query', '--preload', '--records', '10', '--port', String(node.port), '--keys', String(given.keys), '--duration', '1s', '--warmup', '0s'])
  const connections = ['--connections', String(given.connections)]
  line(`batches of 100 reads, ${given.connections} connections`, records(await rounds(['batch', '--rows', '100', ...connections])))
  for (const [count, clients] of [[100, given.connections], [10_000, 4], [given.keys, 1]]) {
    line(`range of ${count} records, ${clients} connections`, records(await rounds(['query', '--records', String(count), '--connections', String(clients)])))
  }

  const stat = await infoOnce({ host: '127.0.0.1', port: node.port, connectTimeoutMs: 2000 }, ['sindex-stat:namespace=test;indexname=perigee-bench'], 2000)
  const numbers = new Map([...stat.values()][0].split(';').map((pair) => pair.split('=')))
  line('secondary index', `${numbers.get('entries')} entries, ${(Number(numbers.get('used_bytes')) / Number(numbers.get('entries'))).toFixed(1)} bytes each`)

  const read = ['read', '--rate', String(PACED_READS), '--connections', String(given.connections), ...common]
  const long = {
    'two long queries': ['query', '--records', String(given.keys)],
    'two long batches': ['batch', '--rows', '5000'],
  }
  const reports = { alone: [] }
  for (let round = 0; round < given.rounds; round++) {
    reports.alone.push(await bench(read))
    for (const [title, args] of Object.entries(long)) {
      const others = bench([...args, '--connections', '2', '--port', String(node.port), '--keys', String(given.keys), '--duration', `${given.seconds + 2}s`, '--warmup', '0s'])
      ;(reports[title] ??= []).push(await bench(read))
      await others
    }
  }
  const latency = (title, of) => median(reports[title].map((it) => it.read_latency_us[of]))
  line(`reads, ${PACED_READS}/s, alone`, `p50 ${latency('alone', 'p50').toFixed(0)} us, p99 ${latency('alone', 'p99').toFixed(0)} us`)
  for (const title of Object.keys(long)) {
    const [p50, p99] = [latency(title, 'p50'), latency(title, 'p99')]
    line(`beside ${title}`, `p50 ${p50.toFixed(0)} us, p99 ${p99.toFixed(0)} us: ${(p99 / latency('alone', 'p99')).toFixed(2)} times`)
  }
  await node.end('SIGTERM')
})
