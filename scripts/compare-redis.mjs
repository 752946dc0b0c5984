// An ordered list of a record against a sorted set of redis-server, in turns in one run: adding an element where it belongs, and reading one
// by its rank; and a map by key against a hash: putting a new pair. Both servers in memory, the same client, as many connections with one
// request in flight each, all on one key.
//
//   npm run bench:containers [-- --elements 10000 --requests 5000 --connections 8 --rounds 5]
import { createHash } from 'node:crypto'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { ScratchNode, freePort, main, median, options, runs, scratchDirectory, sharedDirectory } from './scratch-node.mjs'

const USAGE = 'npm run bench:containers [-- --elements N --requests N --connections N --rounds N]'
const START_MS_MAX = 10_000

const [INFO1_READ, INFO2_WRITE] = [1, 1]
const [OP_WRITE, OP_CDT_READ, OP_CDT_MODIFY] = [2, 3, 4]
const [PARTICLE_BLOB, PARTICLE_MAP, PARTICLE_LIST] = [4, 19, 20]
const [LIST_APPEND, LIST_GET_BY_RANK, MAP_PUT, RETURN_VALUE, ORDERED] = [1, 21, 67, 7, 1]
/** Header of a frame and of a message, up to the result code. */
const RESULT_AT = 8 + 5

function packedInteger (value) {
  const bytes = Buffer.alloc(5)
  bytes.writeUInt8(0xce, 0)
  bytes.writeUInt32BE(value, 1)
  return bytes
}

/** The frame of an operation on bin `l` of a record. */
function request (record, info1, info2, op, particle, value) {
  const field = (id, data) => {
    const head = Buffer.alloc(5)
    head.writeUInt32BE(data.length + 1, 0)
    head.writeUInt8(id, 4)
    return Buffer.concat([head, data])
  }
  const fields = [field(0, Buffer.from('test')), field(4, createHash('ripemd160').update(record).digest())]
  const operation = Buffer.concat([Buffer.alloc(8), Buffer.from('l'), value])
  operation.writeUInt32BE(operation.length - 4, 0)
  operation.writeUInt8(op, 4)
  operation.writeUInt8(particle, 5)
  operation.writeUInt8(1, 7)
  const header = Buffer.alloc(22)
  header.writeUInt8(22, 0)
  header.writeUInt8(info1, 1)
  header.writeUInt8(info2, 2)
  header.writeUInt32BE(10_000, 14)
  header.writeUInt16BE(fields.length, 18)
  header.writeUInt16BE(1, 20)
  const body = Buffer.concat([header, ...fields, operation])
  const frame = Buffer.alloc(8)
  frame.writeUInt8(2, 0)
  frame.writeUInt8(3, 1)
  frame.writeUIntBE(body.length, 2, 6)
  return Buffer.concat([frame, body])
}

const perigee = {
  /** A list of the even numbers, and a map of them to themselves, both ordered. */
  load (elements) {
    // An array, or a map, of as many and one, of which the first says that it is ordered.
    const head = Buffer.from([0xdd, 0, 0, 0, 0, 0xc7, 0, ORDERED])
    head.writeUInt32BE(elements + 1, 1)
    const list = Array.from({ length: elements }, (_, i) => packedInteger(2 * i))
    const mapHead = Buffer.concat([Buffer.of(0xdf), head.subarray(1), Buffer.of(0xc0)])
    return [
      request('list', 0, INFO2_WRITE, OP_WRITE, PARTICLE_LIST, Buffer.concat([head, ...list])),
      request('map', 0, INFO2_WRITE, OP_WRITE, PARTICLE_MAP, Buffer.concat([mapHead, ...list.flatMap((number) => [number, number])]))
    ]
  },
  add: (value) => request('list', 0, INFO2_WRITE, OP_CDT_MODIFY, PARTICLE_BLOB, Buffer.concat([Buffer.of(0x92, LIST_APPEND), packedInteger(value)])),
  read: (rank) => request('list', INFO1_READ, 0, OP_CDT_READ, PARTICLE_BLOB, Buffer.concat([Buffer.of(0x93, LIST_GET_BY_RANK, RETURN_VALUE), packedInteger(rank)])),
  put: (key) => request('map', 0, INFO2_WRITE, OP_CDT_MODIFY, PARTICLE_BLOB, Buffer.concat([Buffer.of(0x93, MAP_PUT), packedInteger(key), packedInteger(key)])),
  /** Bytes of the reply that `buffer` begins with; 0 if it is not complete. */
  reply (buffer) {
    if (buffer.length < 8) return 0
    const end = 8 + buffer.readUIntBE(2, 6)
    if (buffer.length < end) return 0
    if (buffer.readUInt8(RESULT_AT) !== 0) throw new Error(`perigee answers ${buffer.readUInt8(RESULT_AT)}`)
    return end
  }
}

function resp (...parts) {
  return Buffer.from(`*${parts.length}\r\n${parts.map((part) => `$${Buffer.byteLength(String(part))}\r\n${part}\r\n`).join('')}`)
}

const redis = {
  load (elements) {
    const requests = [resp('DEL', 'z', 'h')]
    for (let i = 0; i < elements; i += 500) {
      const members = Array.from({ length: Math.min(500, elements - i) }, (_, n) => [2 * (i + n), 2 * (i + n)]).flat()
      requests.push(resp('ZADD', 'z', ...members), resp('HSET', 'h', ...members))
    }
    return requests
  },
  add: (value) => resp('ZADD', 'z', value, value),
  read: (rank) => resp('ZRANGE', 'z', rank, rank),
  put: (key) => resp('HSET', 'h', key, key),
  reply (buffer) {
    const line = (from) => buffer.indexOf('\r\n', from) + 2
    const first = line(0)
    if (first < 2) return 0
    const kind = String.fromCharCode(buffer[0])
    if (kind === '-') throw new Error(`redis answers ${buffer.toString('utf8', 1, first - 2)}`)
    if (kind !== '*') return first
    // An array of one bulk string.
    const second = line(first)
    if (second < 2 + first) return 0
    const end = second + Number(buffer.toString('utf8', first + 1, second - 2)) + 2
    return buffer.length < end ? 0 : end
  }
}

/** Sends `requests` over the connections, one in flight on each; resolves when all are answered. */
async function send (port, protocol, requests, connections) {
  let next = 0
  const one = async () => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true })
    await once(socket, 'connect')
    await new Promise((resolve, reject) => {
      let buffered = Buffer.alloc(0)
      const step = () => {
        if (next === requests.length) return resolve()
        socket.write(requests[next++])
      }
      socket.on('error', reject)
      socket.on('close', () => reject(new Error('the server closed the connection')))
      socket.on('data', (chunk) => {
        buffered = buffered.length === 0 ? chunk : Buffer.concat([buffered, chunk])
        try {
          for (let bytes = protocol.reply(buffered); bytes > 0; bytes = protocol.reply(buffered)) {
            buffered = buffered.subarray(bytes)
            step()
          }
        } catch (error) {
          reject(error)
        }
      })
      step()
    })
    socket.removeAllListeners('close')
    socket.destroy()
  }
  await Promise.all(Array.from({ length: connections }, one))
}

/** Of the threads that are there: in nanoseconds, where the process's own time would be in hundredths of a second. */
function cpuSeconds (pid) {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) => readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8'))
  return threads.reduce((sum, line) => sum + Number(line.split(' ')[0]), 0) / 1e9
}

async function startRedis (directory) {
  const port = await freePort()
  const child = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', directory], { stdio: 'ignore' })
  process.on('exit', () => child.kill('SIGKILL'))
  for (let waited = 0; waited < START_MS_MAX; waited += 50) {
    await sleep(50)
    try {
      await send(port, redis, [resp('PING')], 1)
      return { port, pid: child.pid, end: () => child.kill('SIGKILL') }
    } catch { /* Not yet. */ }
  }
  throw new Error('redis-server does not start')
}

await main(async () => {
  const given = options(USAGE, { elements: 10_000, requests: 5000, connections: 8, rounds: 5 })
  if (!runs('redis-server', ['--version'])) throw new Error('redis-server is not installed (on Debian or Ubuntu: apt-get install redis-server); it is what the node is compared with')
  const directory = scratchDirectory(tmpdir())
  const node = new ScratchNode(directory, await freePort(), `
service: { work-directory: ${directory}/work, shmem-directory: ${sharedDirectory(directory)} }
namespaces: [{ name: test, storage-engine: { type: memory, data-size: 1G } }]`)
  await node.start()
  const servers = {
    perigee: { protocol: perigee, port: node.port, pid: node.pid },
    redis: { protocol: redis, ...await startRedis(directory) }
  }
  const rounds = { perigee: { add: [], read: [], put: [] }, redis: { add: [], read: [], put: [] } }
  const measure = async ({ protocol, port, pid }, requests) => {
    const [cpu, began] = [cpuSeconds(pid), performance.now()]
    await send(port, protocol, requests, given.connections)
    const seconds = (performance.now() - began) / 1000
    return { perSecond: requests.length / seconds, cpuUs: (cpuSeconds(pid) - cpu) * 1e6 / requests.length }
  }
  for (let round = 0; round < given.rounds; round++) {
    for (const [name, server] of Object.entries(servers)) {
      await send(server.port, server.protocol, server.protocol.load(given.elements), 1)
      // Odd numbers all over the even ones that are there.
      const step = Math.max(1, Math.floor(given.elements / given.requests))
      const values = Array.from({ length: given.requests }, (_, i) => 2 * ((i * 7919 * step) % given.elements) + 1)
      const ranks = values.map((value) => value % given.elements)
      rounds[name].read.push(await measure(server, ranks.map(server.protocol.read)))
      rounds[name].add.push(await measure(server, values.map(server.protocol.add)))
      rounds[name].put.push(await measure(server, values.map(server.protocol.put)))
    }
  }
  await node.end('SIGTERM')
  servers.redis.end()
  console.log(`${given.elements} elements, ${given.connections} connections, medians of ${given.rounds} rounds of ${given.requests} requests`)
  for (const [what, title] of [['read', 'read by rank'], ['add', 'add in order'], ['put', 'put in a map']]) {
    const of = (name, field) => median(rounds[name][what].map((it) => it[field]))
    for (const [field, unit, digits] of [['perSecond', 'requests/s', 0], ['cpuUs', 'CPU us a request', 1]]) {
      const [ours, theirs] = [of('perigee', field), of('redis', field)]
      const ratio = field === 'perSecond' ? theirs / ours : ours / theirs
      console.log(`${`${title}, ${unit}`.padEnd(34)} perigee ${ours.toFixed(digits).padStart(9)}  redis ${theirs.toFixed(digits).padStart(9)}  cost ${ratio.toFixed(2)} times`)
    }
  }
})
