// A node with a port for TLS, spoken to by clients that share no code with it: Node.js's own TLS, the openssl command, the
// official client; and by ours.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect as connectPlain } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { connect, type ConnectionOptions } from 'node:tls'
import { stringify } from 'yaml'
import { Client, RecordError, type TlsOptions } from '../../src/client/index.js'
import { Authority, noOpenssl } from '../support/certificates.js'
import { eventually } from '../support/eventually.js'
import { NodeProcess, memoryNamespace, type NodeOptions } from '../support/node-process.js'
import { connectOfficial, loadOfficialClient } from '../support/official-client.js'
import { packageRoot, perigeeProgram } from '../support/package-root.js'
import { freePort } from '../support/ports.js'
import { removeTempDirectory, tempDirectory } from '../support/temp.js'
import { FRAME_HEADER_BYTES, TYPE_INFO, frame, rawInfoPairs } from '../support/wire.js'

const NAME = 'node.example'

interface Served { node: NodeProcess, port: number }

async function serve (directory: string, networkService: NonNullable<NodeOptions['networkService']>, entry: Record<string, string> = {}, service: NonNullable<NodeOptions['service']> = {}): Promise<Served> {
  const port = await freePort()
  const node = await NodeProcess.start({
    name: 'tls',
    service,
    networkService: { 'tls-port': port, 'tls-name': NAME, ...networkService },
    tls: [{ name: NAME, 'cert-file': join(directory, 'node.pem'), 'key-file': join(directory, 'node-key.pem'), ...entry }]
  })
  return { node, port }
}

/** Asks for the node id over a socket of Node.js's own. Rejects with why that is not possible. */
async function ask (port: number, options: ConnectionOptions): Promise<{ protocol: string | null, answer: string }> {
  const socket = connect({ host: '127.0.0.1', port, servername: NAME, ...options })
  try {
    await once(socket, 'secureConnect')
    const protocol = socket.getProtocol()
    socket.write(frame(TYPE_INFO, Buffer.from('node\n')))
    let answer = Buffer.alloc(0)
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      answer = Buffer.concat([answer, chunk])
      if (answer.length > FRAME_HEADER_BYTES && answer.length >= FRAME_HEADER_BYTES + answer.readUIntBE(2, 6)) break
    }
    if (answer.length === 0) throw new Error('closed without an answer')
    return { protocol, answer: answer.toString('utf8', FRAME_HEADER_BYTES) }
  } finally {
    socket.on('error', () => {})
    socket.destroy()
  }
}

function perigee (args: string[], env: NodeJS.ProcessEnv = {}): { status: number | null, stdout: string, stderr: string } {
  return spawnSync(process.execPath, [perigeeProgram, ...args], { cwd: packageRoot, env: { ...process.env, ...env }, encoding: 'utf8', timeout: 30_000 })
}

describe('TLS', { skip: noOpenssl }, () => {
  const directory = tempDirectory('tls')
  let authority: Authority
  let stranger: Authority
  let open: Served

  before(async () => {
    authority = new Authority(directory, 'authority')
    stranger = new Authority(directory, 'stranger')
    authority.issue('node', NAME)
    open = await serve(directory, { 'tls-authenticate-client': 'false' })
  })

  after(async () => {
    loadOfficialClient().releaseEventLoop()
    await open?.node.dispose()
    removeTempDirectory(directory)
  })

  const ours = (port: number, tls: TlsOptions) => Client.connect({ hosts: [{ host: '127.0.0.1', port }], tls })

  test('our_client_writes_reads_and_scans_over_tls', async () => {
    const client = await ours(open.port, { ca: authority.pem, name: NAME })
    try {
      const indexes = Array.from({ length: 2_000 }, (_, i) => i)
      const key = (i: number) => ({ namespace: 'test', set: 'tls', key: i })
      const text = 'x'.repeat(300_000)
      await client.put({ namespace: 'test', set: 'large', key: 'large' }, { text })
      assert.equal((await client.get({ namespace: 'test', set: 'large', key: 'large' }))?.bins.text, text)
      await Promise.all(indexes.map(i => client.put(key(i), { i }, { timeoutMs: 20_000 })))
      const records = await Promise.all(indexes.map(i => client.get(key(i), { timeoutMs: 20_000 })))
      assert.deepEqual(records.map(record => record?.bins.i), indexes)
      let scanned = 0
      for await (const { set } of client.scan('test', { set: 'tls' })) scanned += set === 'tls' ? 1 : 0
      assert.equal(scanned, 2_000)
    } finally {
      await client.close()
    }
  })

  test('a_certificate_of_another_authority_or_for_another_name_is_refused_by_our_client', async () => {
    const refuses = (tls: TlsOptions, says: RegExp) => assert.rejects(ours(open.port, tls), (error: RecordError) => says.test(error.message))
    await refuses({ ca: stranger.pem, name: NAME }, /TLS: .*(certificate|signature)/)
    await refuses({ ca: authority.pem, name: 'other.example' }, /TLS: .*other\.example/)
    await refuses({ ca: authority.pem }, /TLS: .*127\.0\.0\.1/)
  })

  // It waited for all of its time, as for a node that is not there yet.
  test('what_no_waiting_changes_ends_a_connect_at_once', async () => {
    const rounds: string[] = []
    const refused = async (port: number, tls: TlsOptions | undefined, says: RegExp): Promise<void> => {
      rounds.length = 0
      const options = { hosts: [{ host: '127.0.0.1', port }], tls, timeoutMs: 600_000, connectTimeoutMs: 600_000 }
      await assert.rejects(Client.connect({ ...options, onEvent: ({ kind }) => rounds.push(kind) }), (error: RecordError) => error.code === 'CLIENT_TLS' && says.test(error.message))
      assert.deepEqual(rounds, ['tend-failed'], 'it was tried once')
    }
    await refused(open.port, { ca: stranger.pem, name: NAME }, /certificate|signature/)
    await refused(open.port, { ca: authority.pem, name: 'other.example' }, /other\.example/)
    await refused(open.port, undefined, /the port speaks TLS/)
    await refused(open.node.port, { ca: authority.pem, name: NAME }, /TLS: .*version/)
    // One host that may yet come up is reason enough to wait.
    const absent = await freePort()
    const waiting = Client.connect({ hosts: [{ host: '127.0.0.1', port: open.port }, { host: '127.0.0.1', port: absent }], tls: { ca: stranger.pem, name: NAME }, timeoutMs: 500, connectTimeoutMs: 500 })
    await assert.rejects(waiting, (error: RecordError) => error.code === 'CLIENT_NO_NODE')
  })

  test('the_two_versions_of_tls_are_spoken_and_no_older_one', async () => {
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const { protocol, answer } = await ask(open.port, { ca: authority.pem, minVersion: version, maxVersion: version })
      assert.equal(protocol, version)
      assert.equal(answer, `node\t${await open.node.info('node')}\n`)
    }
    await assert.rejects(ask(open.port, { ca: authority.pem, minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1' }))
  })

  test('the_openssl_command_gets_an_answer', async () => {
    const child = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${open.port}`, '-servername', NAME, '-CAfile', authority.file, '-verify_return_error', '-quiet'], {
      stdio: ['pipe', 'pipe', 'ignore']
    })
    try {
      child.stdin.write(frame(TYPE_INFO, Buffer.from('status\n')))
      const [answer] = await once(child.stdout, 'data') as [Buffer]
      assert.equal(answer.toString('utf8', FRAME_HEADER_BYTES), 'status\tok\n')
    } finally {
      child.kill()
    }
  })

  test('the_official_client_writes_and_reads_over_tls', async () => {
    const aerospike = loadOfficialClient()
    const client = await connectOfficial(open.port, { tls: { name: NAME, files: { cafile: authority.file } } })
    try {
      const key = new aerospike.Key('test', 'official', 'key')
      await client.put(key, { a: 1, b: 'x'.repeat(100_000) })
      assert.deepEqual((await client.get(key)).bins, { a: 1, b: 'x'.repeat(100_000) })
    } finally {
      client.close()
    }
  })

  test('info_tells_the_tls_port_and_counts_its_connections', async () => {
    assert.equal(await open.node.info('service-tls-std'), `127.0.0.1:${open.port}`)
    assert.equal(await open.node.info('service-clear-std'), `127.0.0.1:${open.node.port}`)
    const counters = await rawInfoPairs(open.node.port, 'statistics')
    assert.ok(Number(counters.get('client_tls_connections_opened')) > 0)
    const failed = Number(counters.get('client_tls_handshake_errors'))
    let sent = 0
    // Of all that fails only a line a second is logged.
    await eventually('a connection without TLS is logged', async () => {
      const socket = connectPlain({ host: '127.0.0.1', port: open.port })
      socket.on('error', () => {})
      socket.resume()
      socket.write(frame(TYPE_INFO, Buffer.from('node\n')))
      sent++
      await once(socket, 'close')
      return open.node.log
    }, log => /without TLS/.test(log), { intervalMs: 200 })
    await eventually('each of them is counted', () => rawInfoPairs(open.node.port, 'statistics'),
      statistics => Number(statistics.get('client_tls_handshake_errors')) === failed + sent)
  })

  test('the_command_line_speaks_tls', async () => {
    const target = ['--port', String(open.port), '--tls', '--tls-name', NAME, '--tls-ca-file', authority.file]
    assert.equal(perigee(['info', 'status', ...target]).stdout, 'ok\n')
    assert.equal(perigee(['put', 'test', 'cli', 'ada', 'born=1815', ...target]).status, 0)
    assert.match(perigee(['get', 'test', 'cli', 'ada', '--json', ...target]).stdout, /1815/)
    const env = { PERIGEE_TLS: '1', PERIGEE_TLS_NAME: NAME, PERIGEE_TLS_CA_FILE: authority.file, PERIGEE_PORT: String(open.port) }
    assert.match(perigee(['info', 'node'], env).stdout, /[0-9A-F]+/)
    const refused = perigee(['info', 'status', '--port', String(open.port), '--tls', '--tls-name', NAME, '--tls-ca-file', stranger.file])
    assert.equal(refused.status, 1)
    assert.match(refused.stderr, /TLS: /)
    assert.equal(perigee(['info', 'status', '--tls-name', NAME]).status, 2)
    assert.match(perigee(['info', 'status', '--tls', '--tls-ca-file', '/no/such.pem']).stderr, /\/no\/such\.pem: cannot be read/)
  })

  test('a_client_without_the_right_certificate_is_refused', async () => {
    const friend = authority.issue('friend', 'billing')
    const other = authority.issue('other', 'reports')
    const foreign = stranger.issue('foreign', 'billing')
    for (const [mode, otherIsIn] of [['any', true], ['billing', false]] as const) {
      const { node, port } = await serve(directory, { 'tls-authenticate-client': mode }, { 'ca-file': authority.file })
      try {
        const as = ({ cert, key }: { cert: Buffer, key: Buffer }) => ask(port, { ca: authority.pem, cert, key })
        await as(friend)
        if (otherIsIn) await as(other)
        else await assert.rejects(as(other))
        await assert.rejects(as(foreign))
        await assert.rejects(ask(port, { ca: authority.pem }))
        const client = await ours(port, { ca: authority.pem, name: NAME, cert: friend.cert, key: friend.key })
        await client.put({ namespace: 'test', set: 's', key: 1 }, { a: 1 })
        await client.close()
        await assert.rejects(ours(port, { ca: authority.pem, name: NAME }), /TLS: .*certificate/)
        const official = await connectOfficial(port, { tls: { name: NAME, files: { cafile: authority.file, certfile: friend.certFile, keyfile: friend.keyFile } } })
        official.close()
      } finally {
        await node.dispose()
      }
    }
  })

  test('a_renewed_certificate_is_taken_over_while_the_node_runs', async () => {
    authority.issue('renewed', NAME)
    const files = { 'cert-file': join(directory, 'renewed.pem'), 'key-file': join(directory, 'renewed-key.pem') }
    const { node, port } = await serve(directory, { 'tls-authenticate-client': 'false' }, { ...files, protocols: 'TLSv1.3' }, { 'tls-refresh-period': 1 })
    try {
      const shown = async () => {
        const socket = connect({ host: '127.0.0.1', port, servername: NAME, ca: authority.pem })
        await once(socket, 'secureConnect')
        const { fingerprint256 } = socket.getPeerCertificate()
        socket.destroy()
        return fingerprint256
      }
      const first = await shown()
      assert.equal(await shown(), first)
      await assert.rejects(ask(port, { ca: authority.pem, maxVersion: 'TLSv1.2' }))
      authority.issue('renewed', NAME)
      await eventually('the new certificate is shown', shown, fingerprint => fingerprint !== first)
    } finally {
      await node.dispose()
    }
  })

  test('xdr_ships_over_tls_and_only_to_who_carries_the_name', async () => {
    const west = await serve(directory, {}, { 'ca-file': authority.file })
    const entry = { name: 'shipping', 'cert-file': join(directory, 'node.pem'), 'key-file': join(directory, 'node-key.pem'), 'ca-file': authority.file }
    const shippingTo = (name: string) => ({
      dcs: [{ name: 'west', type: 'cluster', 'tls-name': 'shipping', 'node-address-ports': [`127.0.0.1:${west.port}:${name}`], 'period-ms': 20, namespaces: [{ name: 'test' }] }]
    })
    const east = await NodeProcess.start({ name: 'tls-east', tls: [entry], xdr: shippingTo('other.example') })
    const key = (i: number) => ({ namespace: 'test', set: 'shipped', key: i })
    const inWest = await Client.connect({ hosts: [{ host: '127.0.0.1', port: west.node.port }] })
    const inEast = await Client.connect({ hosts: [{ host: '127.0.0.1', port: east.port }] })
    try {
      for (let i = 0; i < 200; i++) await inEast.put(key(i), { i })
      await eventually('the wrong name is told', () => east.log, log => /TLS: .*other\.example/.test(log))
      assert.equal(await inWest.get(key(0)), null)
      await inEast.close()

      await east.stop()
      east.configure({ xdr: shippingTo(NAME) })
      await east.start()
      const again = await Client.connect({ hosts: [{ host: '127.0.0.1', port: east.port }] })
      for (let i = 0; i < 200; i++) await again.put(key(i), { i })
      await again.close()
      await eventually('every record is there', async () => (await Promise.all(Array.from({ length: 200 }, (_, i) => inWest.get(key(i))))).map(record => record?.bins.i),
        seen => seen.every((value, i) => value === i))
      const counters = await rawInfoPairs(west.node.port, 'statistics')
      assert.ok(Number(counters.get('client_tls_connections')) > 0)
    } finally {
      await inWest.close()
      await Promise.all([east.dispose(), west.node.dispose()])
    }
  })

  test('a_node_whose_files_do_not_fit_says_so_and_ends', () => {
    const stray = stranger.issue('stray', NAME)
    const work = tempDirectory('tls-bad')
    const start = (entry: Record<string, string>) => {
      const path = join(work, 'bad.yaml')
      writeFileSync(path, stringify({
        service: { 'work-directory': join(work, 'data') },
        network: {
          service: { address: '127.0.0.1', port: 0, 'tls-port': 0, 'tls-name': NAME, 'tls-authenticate-client': 'false' },
          tls: [{ name: NAME, 'cert-file': join(directory, 'node.pem'), 'key-file': join(directory, 'node-key.pem'), ...entry }]
        },
        namespaces: [memoryNamespace()]
      }))
      const { status, stderr } = perigee(['serve', '--config', path])
      assert.equal(status, 1, stderr)
      return stderr
    }
    try {
      assert.match(start({ 'key-file': stray.keyFile }), /network\.tls node\.example: the key in .*stray-key\.pem is not that of the certificate in .*node\.pem/)
      assert.match(start({ 'cert-file': '/no/such.pem' }), /\/no\/such\.pem cannot be read/)
    } finally {
      removeTempDirectory(work)
    }
  })
})
