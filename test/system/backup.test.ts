// Backup and restore between two real nodes, with the processes and a node killed in the middle: in the end both namespaces are equal.
import assert from 'node:assert/strict'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, existsSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { EVERY_TYPE } from '../../src/backup/testing/every-type.js'
import { Client, OpaqueParticle } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { NodeProcess, fileNamespace } from '../support/node-process.js'
import { packageRoot, perigeeProgram } from '../support/package-root.js'
import { seeded } from '../support/seed.js'
import { tempDirectory } from '../support/temp.js'

const RECORDS = 9_000
const TYPES = EVERY_TYPE.filter(({ key }) => key.set === 'types').length + 1
const KEYS = EVERY_TYPE.filter(({ sendKey }) => sendKey).length
/** A time to live is sent as what is left of it, in whole seconds. */
const TTL_SECONDS_OFF = 2

const namespaces = (directory: string) => [fileNamespace(directory, {
  name: 'test', storage: { 'commit-to-device': true, 'flush-size': '16K' }, more: { 'nsup-period': 1000 }
})]
const scratch = tempDirectory('backup')
let source: NodeProcess
let target: NodeProcess

interface Ended { code: number | null, signal: NodeJS.Signals | null, out: string, err: string }

class Command {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>

  constructor (node: NodeProcess, ...args: string[]) {
    this.child = spawn(process.execPath, [perigeeProgram, ...args, '--port', String(node.port)], {
      cwd: packageRoot, env: { ...process.env, NODE_TEST_CONTEXT: undefined }, stdio: ['ignore', 'pipe', 'pipe']
    })
    let [out, err] = ['', '']
    this.child.stdout!.on('data', (text: Buffer) => { out += text.toString('latin1') })
    this.child.stderr!.on('data', (text: Buffer) => { err += text.toString() })
    this.ended = new Promise((resolve) => { this.child.once('close', (code, signal) => { resolve({ code, signal, out, err }) }) })
  }
}

async function done (node: NodeProcess, ...args: string[]): Promise<Ended> {
  const ended = await new Command(node, ...args).ended
  assert.equal(ended.code, 0, `perigee ${args.join(' ')}: ${ended.err}`)
  return ended
}

async function connected<T> (node: NodeProcess, use: (client: Client) => Promise<T>): Promise<T> {
  const client = await Client.connect({ hosts: [`127.0.0.1:${node.port}`], timeoutMs: 10_000 })
  try {
    return await use(client)
  } finally {
    await client.close()
  }
}

interface Content { set: string, key: string | undefined, voidTime: number, bins: string }

/** Every record of a namespace by its digest, bins in the order of their names. */
async function contents (node: NodeProcess): Promise<Map<string, Content>> {
  return await connected(node, async (client) => {
    const found = new Map<string, Content>()
    for await (const { records } of client.scanPages('test')) {
      for (const { digest, set, key, voidTime, bins } of records) {
        assert.ok(!found.has(digest.toString('hex')))
        const sorted = bins.map(({ name, type, value }) => `${name} ${type} ${value.toString('hex')}`).sort()
        found.set(digest.toString('hex'), { set, key: key?.toString('hex'), voidTime, bins: sorted.join('\n') })
      }
    }
    return found
  })
}

async function assertEqual (): Promise<void> {
  const [left, right] = [await contents(source), await contents(target)]
  assert.equal(right.size, left.size)
  for (const [digest, record] of left) {
    const copy = right.get(digest)
    assert.ok(copy !== undefined, `${digest} is missing`)
    assert.ok(Math.abs(copy.voidTime - record.voidTime) <= TTL_SECONDS_OFF, `${digest} expires at ${copy.voidTime}, not ${record.voidTime}`)
    assert.deepEqual({ ...copy, voidTime: 0 }, { ...record, voidTime: 0 })
  }
}

before(async () => {
  source = await NodeProcess.start({ name: 'source', namespaces })
  target = await NodeProcess.start({ name: 'target', namespaces })
  const random = seeded('backup')
  await connected(source, async (client) => {
    for (const { key, bins, sendKey } of EVERY_TYPE) await client.put(key, bins, { sendKey })
    await client.put({ namespace: 'test', set: 'types', key: 'blob of a language' }, { value: new OpaqueParticle(9, Buffer.from('python')) })
    await client.put({ namespace: 'test', key: 'expires' }, { i: 1 }, { ttl: 1000 })
    for (let n = 0; n < RECORDS; n += 500) {
      await Promise.all(Array.from({ length: 500 }, (_, i) => {
        const policy = { sendKey: (n + i) % 3 === 0, ttl: (n + i) % 5 === 0 ? 5_000 + n + i : undefined }
        return client.put({ namespace: 'test', set: n % 1000 === 0 ? 'one' : 'two', key: `key-${n + i}` }, { n: n + i, text: random.text(800), list: [n, i] }, policy)
      }))
    }
  })
  writeFileSync(join(scratch, 'adder.lua'), 'function add(rec, n)\n  return n\nend\n')
  await done(source, 'udf', 'put', join(scratch, 'adder.lua'))
})

after(async () => {
  await source?.dispose()
  await target?.dispose()
})

const directory = join(scratch, 'killed')
const statePath = join(directory, 'test.asb.state')

test('a backup that is killed, whose node is killed, and that is interrupted, goes on and is complete', async () => {
  const slow = ['--file-limit', '1', '--parallel', '2', '--records-per-second', '2000', '--retry-for', '60s']
  const finished = (): number => existsSync(statePath) ? (JSON.parse(readFileSync(statePath, 'utf8')) as { files: unknown[] }).files.length : 0
  const killed = new Command(source, 'backup', '-n', 'test', '-d', directory, ...slow)
  await eventually('a file is finished', finished, (files) => files >= 1)
  killed.child.kill('SIGKILL')
  await killed.ended
  assert.ok(!existsSync(join(directory, 'perigee-backup.json')))
  const again = await new Command(source, 'backup', '-n', 'test', '-d', directory).ended
  assert.equal(again.code, 1, 'it does not overwrite what is there')

  const before = finished()
  const resumed = new Command(source, 'backup', '--continue', statePath, '-d', directory, ...slow)
  await eventually('another file is finished', finished, (files) => files > before)
  await source.kill()
  await source.start()
  await eventually('and another, from the node that came back', finished, (files) => files > before + 2)
  resumed.child.kill('SIGINT')
  const stopped = await resumed.ended
  assert.equal(stopped.code, 1)
  assert.match(stopped.err, /go on with --continue/)

  const last = await done(source, 'backup', '--continue', statePath, '-d', directory, '--json')
  const outcome = JSON.parse(last.out) as { records: number, complete: boolean, modules: number, missing: number }
  const records = (await contents(source)).size
  assert.deepEqual([outcome.complete, outcome.records, outcome.modules, outcome.missing], [true, records, 1, 0])
  assert.ok(!existsSync(statePath))
  const files = readdirSync(directory)
  assert.equal(files.filter((name) => name.endsWith('.part')).length, 0)
  const first = files.filter((name) => name.endsWith('.asb') && readFileSync(join(directory, name), 'latin1').includes('\n# first-file\n'))
  assert.equal(first.length, 1)
  await done(source, 'backup', '--verify', directory)
})

test('a restore that is killed, whose node is killed, goes on, and the namespaces are equal', async () => {
  const state = join(directory, 'perigee-restore.state')
  const read = (): number => existsSync(state) ? (JSON.parse(readFileSync(state, 'utf8')) as { counts: { read: number } }).counts.read : 0
  const slow = ['--records-per-second', '2000']
  const killed = new Command(target, 'restore', '-d', directory, ...slow)
  await eventually('some of it is restored', read, (count) => count > 500)
  killed.child.kill('SIGKILL')
  await killed.ended
  const resumed = new Command(target, 'restore', '-d', directory, '--continue', state, ...slow)
  const before = read()
  await eventually('more of it is restored', read, (count) => count > before)
  await target.kill()
  await target.start()
  const ended = await resumed.ended
  assert.equal(ended.code, 0, ended.err)
  assert.ok(!existsSync(state))
  await assertEqual()
  assert.match((await done(target, 'udf', 'list')).out, /adder\.lua/)
})

test('a second restore changes nothing, whatever the policy leaves alone', async () => {
  const counts = async (...args: string[]): Promise<Record<string, number>> => JSON.parse((await done(target, 'restore', '-d', directory, '--json', ...args)).out) as Record<string, number>
  const { read, fresher } = await counts()
  assert.equal(fresher, read)
  assert.equal((await counts('--unique')).existed, read)
  const some = await counts('--set-list', 'types', '--no-generation', '--replace')
  assert.equal(some.inserted! + some.skipped!, read)
  assert.equal(some.inserted, TYPES)
  await assertEqual()
})

test('a file that was altered, or is missing, is noticed before anything is restored', async () => {
  const name = readdirSync(directory).find((entry) => entry.endsWith('.asb'))!
  const path = join(directory, name)
  const whole = readFileSync(path)
  const flipped = Buffer.from(whole)
  flipped[flipped.length >> 1]! ^= 1
  writeFileSync(path, flipped)
  const verified = await new Command(target, 'backup', '--verify', directory).ended
  assert.equal(verified.code, 1)
  assert.match(verified.err, new RegExp(`${name} is not what was written`))
  assert.equal((await new Command(target, 'restore', '-d', directory).ended).code, 1)
  writeFileSync(path, whole.subarray(0, whole.length - 5))
  assert.match((await new Command(target, 'restore', '-d', directory).ended).err, new RegExp(`${name} has ${whole.length - 5} bytes, not ${whole.length}`))
  const unverified = await new Command(target, 'restore', '-d', directory, '--no-verify').ended
  assert.equal(unverified.code, 1)
  assert.match(unverified.err, new RegExp(`${name}:\\d+: the file ends here`))
  writeFileSync(path, whole)
  await done(target, 'restore', '-d', directory, '--validate')
})

test('a single file in the compact form restores to the same, through a pipe too', async () => {
  const file = join(scratch, 'one.asb')
  await done(source, 'backup', '-n', 'test', '-o', file, '--compact', '-s', 'types,my set\\\n!')
  const piped = await done(source, 'backup', '-n', 'test', '-o', '-', '--compact', '-s', 'types', '-s', 'my set\\\n!')
  const digests = (text: string): string[] => text.split('\n').filter((line) => line.startsWith('+ d ')).sort()
  assert.deepEqual(digests(piped.out), digests(readFileSync(file, 'latin1')))
  await target.stop()
  await target.dispose()
  target = await NodeProcess.start({ name: 'target', namespaces })
  await done(target, 'restore', '-i', file)
  const [left, right] = [await contents(source), await contents(target)]
  assert.equal(right.size, TYPES + KEYS)
  for (const [digest, record] of right) assert.deepEqual({ ...record, voidTime: 0 }, { ...left.get(digest)!, voidTime: 0 })
})

test('files that the official library wrote restore to what it backed up', async () => {
  const original = await contents(source)
  for (const name of ['official.asb', 'official-compact.asb']) {
    await connected(target, (client) => client.info('truncate-namespace:namespace=test'))
    await done(target, 'restore', '-i', join(packageRoot, 'src/backup/vectors', name))
    const restored = await contents(target)
    assert.equal(restored.size, EVERY_TYPE.length)
    for (const [digest, record] of restored) assert.deepEqual(record, original.get(digest))
  }
  // A name with a line feed, and an expression that is cut short.
  const globals = await new Command(target, 'restore', '-i', join(packageRoot, 'src/backup/vectors/official-globals.asb')).ended
  assert.equal(globals.code, 1)
  assert.match(globals.out, /1 modules, 1 indexes, 2 indexes NOT created/)
  assert.match(globals.err, /official-globals\.asb:10: the secondary index is not created, its name cannot be one here: /)
  assert.match(globals.err, /official-globals\.asb:13: the secondary index is not created, .+: \* e test types expr/)
})

test('secondary indexes move along', async () => {
  const definitions = ['set=types;indexname=plain;bin=n;type=numeric', 'indexname=odd name;bin=a b;type=string;indextype=mapkeys;context=kiKiA24=', 'set=types;indexname=sum;exp=kxSTUQKhYQE=;type=numeric']
  const made = join(scratch, 'indexes')
  const names = (node: NodeProcess) => node.info('sindex-list:namespace=test').then((list) => list.split(';').map((index) => index.replace(/:state=..$/, '')))
  await target.info('sindex-delete:namespace=test;indexname=plain')
  for (const definition of definitions) assert.equal(await source.info(`sindex-create:namespace=test;${definition}`), 'ok')
  await done(source, 'backup', '-n', 'test', '-d', made, '--no-records')
  const restored = await done(target, 'restore', '-d', made)
  assert.match(restored.out, /1 modules, 3 indexes/)
  assert.deepEqual(await names(target), await names(source))
})

test('expired records, and those that are too large, are counted and left out', async () => {
  const digest = (text: string): string => createHash('ripemd160').update(text).digest('base64')
  const record = (name: string, voidTime: number, bytes: number): string =>
    `+ n test\n+ d ${digest(name)}\n+ s made\n+ g 1\n+ t ${voidTime}\n+ b 1\n- S s ${bytes} ${'x'.repeat(bytes)}\n`
  const file = join(scratch, 'made.asb')
  writeFileSync(file, `Version 3.1\n# namespace test\n${record('old', 1000, 5)}${record('large', 0, 2_000_000)}${record('good', 0, 5)}`)
  const ended = await new Command(target, 'restore', '-i', file, '--json').ended
  assert.equal(ended.code, 1)
  const counts = JSON.parse(ended.out) as Record<string, number>
  assert.deepEqual([counts.read, counts.inserted, counts.expired, counts.tooBig], [3, 1, 1, 1])
  assert.match(ended.err, new RegExp(`made.asb:10: record ${Buffer.from(digest('large'), 'base64').toString('hex')} is larger`))
  const extended = await new Command(target, 'restore', '-i', file, '--json', '--extra-ttl', '7300d').ended
  assert.equal((JSON.parse(extended.out) as Record<string, number>).expired, 0)
})

/** Ends by itself, with a message and no success. */
async function refused (says: RegExp, ...args: string[]): Promise<void> {
  const { code, signal, err } = await new Command(source, ...args).ended
  assert.equal(code, 1, `perigee ${args.join(' ')}: ${signal ?? ''} ${err}`)
  assert.match(err, says)
}

test('a place that cannot be written is refused with a message', async () => {
  const file = join(scratch, 'a file')
  writeFileSync(file, 'kept')
  // The file system of the kernel takes no new entries: Node.js's own way of making directories never ended there.
  await refused(/\/proc\/nope cannot be made \(ENOENT\)/, 'backup', '-n', 'test', '-d', '/proc/nope')
  await refused(/a file is not a directory/, 'backup', '-n', 'test', '-d', file)
  await refused(/below is not a directory/, 'backup', '-n', 'test', '-d', join(file, 'below'), '--remove-files')
  await refused(/is a directory; --directory/, 'backup', '-n', 'test', '-o', scratch, '--remove-files')
  await refused(/no such file or directory/, 'backup', '-n', 'test', '-o', join(scratch, 'no', 'such.asb'))
  assert.equal(readFileSync(file, 'utf8'), 'kept')
})

test('a backup to a stdout that takes no more fails', async () => {
  const lost = new Command(source, 'backup', '-n', 'test', '-o', '-')
  lost.child.stdout!.once('data', () => { lost.child.stdout!.destroy() })
  const { code, err } = await lost.ended
  assert.equal(code, 1, err)
  assert.match(err, /stdout cannot be written \(EPIPE\)/)
})

test('a restore reads pipes, and from where it cannot write, and refuses what it cannot read', async () => {
  const file = join(scratch, 'whole.asb')
  const { records } = JSON.parse((await done(source, 'backup', '-n', 'test', '-o', file, '--json')).out) as { records: number }
  const read = (out: string): number => (JSON.parse(out) as { read: number }).read
  await refused(/cannot be read \(ENOENT\)/, 'restore', '-d', '/proc/nope')
  await refused(/is a directory; --directory/, 'restore', '-i', scratch)
  const pipe = join(scratch, 'pipe')
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0)
  const restore = new Command(target, 'restore', '-i', pipe, '--no-generation', '--json')
  const writer = spawn('cp', [file, pipe], { stdio: 'ignore' })
  const piped = await restore.ended
  writer.kill()
  assert.equal(piped.code, 0, piped.err)
  assert.equal(read(piped.out), records)
  assert.ok(!existsSync(`${pipe}.restore.state`))
  // A link below /proc: nothing can be made beside it, also by root.
  const held = openSync(file, 'r')
  const beside = await new Command(target, 'restore', '-i', `/proc/${process.pid}/fd/${held}`, '--no-generation', '--json').ended
  closeSync(held)
  assert.equal(beside.code, 0, beside.err)
  assert.match(beside.err, /restore\.state cannot be written \(\w+\): a restore that is stopped has to begin anew/)
  assert.equal(read(beside.out), records)
})
