// What a node makes of its device: fio and a namespace in a file of the same file system, in turns in one run, and their ratios.
//
//   npm run bench:device [-- --directory DIR --file-mib 4096 --seconds 10 --rounds 3 --depths 1,16,64]
//
// Reads: fio reads 4 KiB at random places with direct I/O and io_uring, at a queue depth; the node serves records of 1000 bytes, most of
// them in one page, to as many connections, none of them from a cache. Writes: fio writes 1 MiB units in sequence; the node ingests the records.
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ScratchNode, bench, freePort, main, median, options, runs, scratchDirectory, sharedDirectory } from './scratch-node.mjs'

const USAGE = 'npm run bench:device [-- --directory DIR --file-mib N --seconds N --rounds N --depths N,N --object-size BYTES]'
const MiB = 2 ** 20
/** Of the file, so that defragmentation has nothing to do while reads are measured. */
const FILL = 0.6
/** An image's header, set and bin name. */
const OVERHEAD_BYTES = 80

function fio (file, bytes, seconds, depth, args) {
  const result = spawnSync('fio', [
    '--name=x', `--filename=${file}`, `--size=${bytes}`, '--direct=1', '--ioengine=io_uring', `--iodepth=${depth}`, '--time_based', `--runtime=${seconds}`,
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

function row (name, node, device, unit) {
  const cell = (value, digits = 0) => value.toFixed(digits).padStart(12)
  console.log(`${name.padEnd(26)}${cell(node / unit)}${cell(device / unit)}${cell(node / device, 2)}`)
}

await main(async () => {
  const given = options(USAGE, { directory: tmpdir(), 'file-mib': 4096, seconds: 10, rounds: 3, depths: '1,16,64', 'object-size': 1000 })
  if (!runs('fio', ['--version'])) throw new Error('fio is not installed (on Debian or Ubuntu: apt-get install fio); it is what the node is compared with')
  const directory = scratchDirectory(given.directory)
  const shared = sharedDirectory(directory)
  const bytes = given['file-mib'] * MiB
  const depths = given.depths.split(',').map(Number)
  const values = Math.floor(bytes * FILL * given['object-size'] / (given['object-size'] + OVERHEAD_BYTES))
  const file = join(directory, 'fio.dat')
  const writes = { node: [], fio: [] }
  console.log(`${directory}: ${given['file-mib']} MiB, ${given.rounds} rounds of ${given.seconds} s, medians`)
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
    const ingest = await bench(['ingest', '--port', String(port), '--objects-bytes', String(values), '--object-size', String(given['object-size']), '--connections', '64'])
    writes.node.push(ingest.object_bytes_per_second)
    writes.fio.push(fio(file, bytes, given.seconds, 4, ['--rw=write', '--bs=1M', '--end_fsync=1']).bytesPerSecond)
  }
  const shape = ['--port', String(port), '--objects-bytes', String(values), '--object-size', String(given['object-size'])]
  console.log(`${''.padEnd(26)}${'node'.padStart(12)}${'fio'.padStart(12)}${'ratio'.padStart(12)}`)
  row('writes, MB/s', median(writes.node), median(writes.fio), 1e6)
  for (const depth of depths) {
    const rounds = { node: [], fio: [] }
    for (let round = 0; round < given.rounds; round++) {
      rounds.fio.push(fio(file, bytes, given.seconds, depth, ['--rw=randread', '--bs=4k']))
      const read = await bench(['read', ...shape, '--connections', String(depth), '--duration', String(given.seconds), '--warmup', '1', '--server-pid', String(node.pid)])
      rounds.node.push({ iops: read.operations_per_second, p99Us: read.read_latency_us.p99, cpuSecondsPerMillion: read.server_cpu_seconds_per_million })
    }
    for (const [name, of, unit] of [['reads/s', 'iops', 1], ['p99 us', 'p99Us', 1], ['CPU s per million', 'cpuSecondsPerMillion', 1]]) {
      row(`depth ${depth}, ${name}`, median(rounds.node.map((it) => it[of])), median(rounds.fio.map((it) => it[of])), unit)
    }
  }
  await node.end('SIGTERM')
  rmSync(file, { force: true })
})
