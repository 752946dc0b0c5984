// Devices that fail, seen from a client: the right code, counted, and whoever does not need the failed bytes is still served.
//
// Fault model: stored bytes that changed, a device that no longer reads (a loop device whose file was cut), a file system without room.
// The last two need root and loop devices; without them they are skipped.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { NodeProcess, fileNamespace, memoryNamespace } from '../support/node-process.js'
import { removeTempDirectory, tempDirectory } from '../support/temp.js'
import { RawConnection, decodeMessage, getAll, putBlob, type RawKey } from '../support/wire.js'

const OK = 0
const UNKNOWN = 1
const RECORDS = 40
/** Above the low-water mark of a block together, so that defragmentation leaves them where they are. */
const VALUE = Buffer.alloc(5_000, 'v')
const STORAGE = { 'write-block-size': '64K', 'flush-size': '64K', 'post-write-cache': 0, 'defrag-lwm-pct': 1 }
const SMALL = { 'max-record-size': '32K' }

const canMount = process.getuid?.() === 0 && existsSync('/dev/loop-control')

function key (name: string, namespace = 'test'): RawKey {
  return { namespace, set: 's', digest: createHash('sha1').update(name).digest() }
}

async function ask (connection: RawConnection, frame: Buffer): Promise<number> {
  connection.send(frame)
  return decodeMessage(await connection.receive()).result
}

async function fill (node: NodeProcess): Promise<void> {
  const connection = await RawConnection.open(node.port)
  for (let i = 0; i < RECORDS; i++) assert.equal(await ask(connection, putBlob(key(`k${i}`), 'b', VALUE)), OK)
}

async function statistic (node: NodeProcess, name: string): Promise<number> {
  const found = (await node.info('namespace/test')).split(';').find((pair) => pair.startsWith(`${name}=`))
  assert.ok(found !== undefined, `no statistic ${name}`)
  return Number(found.slice(name.length + 1))
}

for (const loop of ['io_uring', 'epoll']) {
  test(`a damaged record is refused and counted, and its neighbours are read (${loop})`, async () => {
    const node = await NodeProcess.create({
      name: 'damage', service: { 'network-loop': loop },
      namespaces: (directory) => [fileNamespace(directory, { storage: STORAGE, more: SMALL, filesize: '16M' })]
    })
    try {
      await node.start()
      await fill(node)
      await node.restart()
      const path = join(node.directory, 'test.dat')
      const at = readFileSync(path).indexOf(key('k3').digest)
      assert.ok(at > 0)
      const file = openSync(path, 'r+')
      writeSync(file, Buffer.from('damage'), 0, 6, at + 1_000)
      closeSync(file)
      const connection = await RawConnection.open(node.port)
      for (let i = 0; i < RECORDS; i++) assert.equal(await ask(connection, getAll(key(`k${i}`))), i === 3 ? UNKNOWN : OK, `k${i}`)
      assert.equal(await statistic(node, 'client_read_error'), 1)
      assert.equal(await statistic(node, 'storage-engine.damaged'), 1)
      assert.equal(await statistic(node, 'storage-engine.device_reads'), RECORDS)
      assert.equal(await ask(connection, putBlob(key('k3'), 'b', VALUE)), UNKNOWN, 'an update needs the old bytes')
      assert.match(node.log, /a record could not be read/)
    } finally {
      await node.dispose()
    }
  })
}

test('reads of a device that fails are refused and counted, and another namespace is served', { skip: !canMount && 'needs root and loop devices' }, async () => {
  const node = await NodeProcess.create({ name: 'failing' })
  const backing = join(node.directory, 'backing')
  mkdirSync(node.directory, { recursive: true })
  closeSync(openSync(backing, 'w'))
  truncateSync(backing, 16 << 20)
  const device = execFileSync('losetup', ['-f', '--show', backing], { encoding: 'utf8' }).trim()
  try {
    node.configure({
      namespaces: [{ name: 'test', ...SMALL, 'storage-engine': { type: 'device', devices: [device], ...STORAGE } }, memoryNamespace('other')]
    })
    await node.start()
    await fill(node)
    await node.restart()
    truncateSync(backing, 0)
    const connection = await RawConnection.open(node.port)
    for (let i = 0; i < RECORDS; i++) assert.equal(await ask(connection, getAll(key(`k${i}`))), UNKNOWN, `k${i}`)
    assert.equal(await statistic(node, 'client_read_error'), RECORDS)
    assert.ok(await statistic(node, 'storage-engine.read_errors') >= RECORDS)
    assert.equal(await ask(connection, putBlob(key('k', 'other'), 'b', VALUE)), OK)
    assert.equal(await ask(connection, getAll(key('k', 'other'))), OK)
  } finally {
    await node.dispose()
    execFileSync('losetup', ['-d', device])
  }
})

test('a file system without room for the file is said at the start, and nothing serves', { skip: !canMount && 'needs root' }, async () => {
  const directory = tempDirectory('full')
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8M', 'tmpfs', directory])
  const node = await NodeProcess.create({ name: 'full', namespaces: [fileNamespace(directory, { filesize: '64M' })] })
  try {
    await assert.rejects(node.start(), /No space left on device/)
    assert.equal((await node.exited()).code, 1)
  } finally {
    await node.dispose()
    execFileSync('umount', [directory])
    removeTempDirectory(directory)
  }
})
