// What a node makes of its device, in turns in one run: fio; the engine alone, which reads records through a network loop without
// connections; a node over loopback; and an echo server over loopback, which is what sockets allow. Files of one file system.
//
//   npm run bench:device [-- --directory DIR --file-mib 4096 --seconds 10 --rounds 3 --depths 1,16,64]
//
// Reads: fio reads 4 KiB at random places of as many bytes as the records have, with direct I/O and io_uring, at a queue depth; the engine
// and the node read records of 1000 bytes, three quarters of them in one page, as many at once, none of them from a cache. Writes: fio
// writes 1 MiB units in sequence; the node ingests the records.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { ScratchNode, bench, benchProgram, freePort, main, median, options, runs, scratchDirectory, sharedDirectory } from './scratch-node.mjs'

const USAGE = 'npm run bench:device [-- --directory DIR --file-mib N --seconds N --rounds N --depths N,N --object-size BYTES]'
const MiB = 2 ** 20
/** Of the file, so that defragmentation has nothing to do while reads are measured. */
const FILL = 0.6
/** An image's header, set and bin name. */
const OVERHEAD_BYTES = 80

function fio (file, bytes, seconds, depth, args) {
  const result = spawnSync('fio', [
    '--name=x', `--filename=${file}`, `--size=${Math.floor(bytes / MiB) * MiB}`, '--direct=1', '--ioengine=io_uring', `--iodepth=${depth}`, '--time_based', `--runtime=${seconds}`,
    '--ramp_time=1', '--output-format=json', '--randrepeat=1', ...args
  ], { encoding: 'utf8', maxBuffer: 1 << 26 })
  if (result.status !== 0) throw new Error(`fio: ${result.stderr.trim() || `exit ${result.status}`}`)
  const [job] = JSON.parse(result.stdout.slice(result.stdout.indexOf('{'))).jobs
  const side = job.read.total_ios > 0 ? job.read : job.write
  return {
    iops: side.iops,
    bytesPerSecond: side.bw_bytes,
    p99Us: side.clat_ns.percentile['99.000000'] / 1000,
    cpuSecondsPerMillion: (job.usr_cpu + job.sys_cpu) / 100 * (job.job_runtime / 1000) * 1e6 / side.total_ios
  }
}

/** The engine without a network: `perigee-bench engine-reads`, which is filled once and measures whenever it is told to. */
class Engine {
  #child
  #lines

  constructor (args) {
    this.#child = spawn(benchProgram, ['engine-reads', ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
    process.on('exit', () => this.#child.kill('SIGKILL'))
    this.#lines = createInterface(this.#child.stdout)[Symbol.asyncIterator]()
  }

  async #next () {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('perigee-bench engine-reads has ended')
    return JSON.parse(value)
  }

  filled () {
    return this.#next()
  }

  measure (depth, seconds) {
    this.#child.stdin.write(`${depth} ${seconds}\n`)
    return this.#next()
  }

  async end () {
    this.#child.stdin.end()
    if (this.#child.exitCode === null) await once(this.#child, 'exit')
  }
}

/** Figures of one depth by who made them, a list of rounds each. */
const SOURCES = ['fio', 'engine', 'node', 'echo']

function line (name, cells) {
  console.log(`${name.padEnd(27)}${cells.map((cell) => String(cell).padStart(14)).join('')}`)
}

function rows (depth, rounds) {
  const of = (source, field) => median(rounds[source].map((it) => it[field]))
  for (const [name, field, digits] of [['reads/s', 'iops', 0], ['p99 us', 'p99Us', 0], ['CPU s per million', 'cpuSecondsPerMillion', 2]]) {
    const [device, engine, node, echo] = SOURCES.map((source) => of(source, field))
    const cells = [device, engine, node, echo].map((value) => value.toFixed(digits))
    line(`depth ${depth}, ${name}`, [...cells, (engine / device).toFixed(2), (node / device).toFixed(2)])
  }
}

await main(async () => {
  const given = options(USAGE, { directory: tmpdir(), 'file-mib': 4096, seconds: 10, rounds: 3, depths: '1,16,64', 'object-size': 1000 })
  if (!runs('fio', ['--version'])) throw new Error('fio is not installed (on Debian or Ubuntu: apt-get install fio); it is what the node is compared with')
  const directory = scratchDirectory(given.directory)
  const shared = sharedDirectory(directory)
  const { seconds, 'object-size': objectSize } = given
  const bytes = given['file-mib'] * MiB
  const depths = given.depths.split(',').map(Number)
  const objects = ['--objects-bytes', String(Math.floor(bytes * FILL * objectSize / (objectSize + OVERHEAD_BYTES))), '--object-size', String(objectSize)]
  const file = join(directory, 'fio.dat')
  const writes = { node: [], fio: [] }
  console.log(`${directory}: ${given['file-mib']} MiB, ${given.rounds} rounds of ${seconds} s, medians`)
  let node
  let port
  for (let round = 0; round < given.rounds; round++) {
    // A file of its own for each round: overwriting the last one's records would be defragmented meanwhile.
    await node?.end('SIGTERM')
    rmSync(join(directory, 'test.dat'), { force: true })
    port = await freePort()
    node = new ScratchNode(directory, port, `
service: { work-directory: ${join(directory, 'work')}, shmem-directory: ${shared} }
namespaces:
  - name: test
    stop-writes-used-pct: 95
    storage-engine: { type: device, files: [${join(directory, 'test.dat')}], filesize: ${bytes}, post-write-cache: 0 }`)
    await node.start()
    const ingest = await bench(['ingest', '--port', String(port), ...objects, '--connections', '64'])
    writes.node.push(ingest.object_bytes_per_second)
    writes.fio.push(fio(file, bytes, seconds, 4, ['--rw=write', '--bs=1M', '--end_fsync=1']).bytesPerSecond)
  }
  const [written, taken] = [median(writes.node), median(writes.fio)]
  line('', ['fio', 'node', 'node / fio'])
  line('writes, MB/s', [(taken / 1e6).toFixed(0), (written / 1e6).toFixed(0), (written / taken).toFixed(2)])

  const engine = new Engine(['--path', join(directory, 'engine.dat'), '--file-size', String(bytes), '--warmup', '1', ...objects])
  await engine.filled()
  const timed = ['--duration', String(seconds), '--warmup', '1']
  const asked = (report) => ({ iops: report.operations_per_second, p99Us: report.read_latency_us.p99 })
  line('', [...SOURCES, 'engine / fio', 'node / fio'])
  for (const depth of depths) {
    const rounds = Object.fromEntries(SOURCES.map((source) => [source, []]))
    const connections = ['--connections', String(depth)]
    for (let round = 0; round < given.rounds; round++) {
      rounds.fio.push(fio(file, bytes * FILL, seconds, depth, ['--rw=randread', '--bs=4k']))
      const alone = await engine.measure(depth, seconds)
      rounds.engine.push({ ...asked(alone), cpuSecondsPerMillion: alone.cpu_seconds_per_million })
      const read = await bench(['read', '--port', String(port), ...objects, ...connections, ...timed, '--server-pid', String(node.pid)])
      rounds.node.push({ ...asked(read), cpuSecondsPerMillion: read.server_cpu_seconds_per_million })
      const { rows: [echo] } = await bench(['limit', '--object-size', String(objectSize), ...connections, ...timed, '--rounds', '1'])
      rounds.echo.push({ iops: echo.operations_per_second, p99Us: echo.p99_us, cpuSecondsPerMillion: echo.server_cpu_seconds_per_million })
    }
    rows(depth, rounds)
  }
  await engine.end()
  await node.end('SIGTERM')
  rmSync(file, { force: true })
})
