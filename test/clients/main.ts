// `npm run clients`: a tour of the official clients of other languages against a node, plain and over TLS. Each comes from its package registry,
// in the version that is pinned beside its tour; one whose language is not installed is skipped with a message. `-- java` runs one.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Authority, noOpenssl } from '../support/certificates.js'
import { NodeProcess } from '../support/node-process.js'
import { packageRoot } from '../support/package-root.js'
import { freePort } from '../support/ports.js'
import { removeTempDirectory, tempDirectory } from '../support/temp.js'

const NAME = 'perigee.example'
const STORE_PASSWORD = 'changeit'

interface Tls { port: number, directory: string }

function run (command: string, args: readonly string[], cwd: string): boolean {
  return spawnSync(command, args, { cwd, stdio: 'inherit' }).status === 0
}

function lacks (command: string, version: string): boolean {
  return spawnSync(command, [version], { stdio: 'ignore' }).status !== 0
}

function python (port: number, tls: Tls | undefined): boolean | string {
  if (lacks('python3', '--version')) return 'no python3 on the path'
  const directory = join(packageRoot, 'test/clients/python')
  const venv = join(directory, 'target')
  const program = join(venv, 'bin/python')
  if (!existsSync(program) && !run('python3', ['-m', 'venv', venv], directory)) return false
  if (!run(program, ['-m', 'pip', 'install', '--quiet', '-r', 'requirements.txt'], directory)) return false
  const tour = (...args: string[]): boolean => run(program, ['-W', 'ignore', 'check.py', '127.0.0.1', ...args], directory)
  const files = tls === undefined ? [] : ['authority.pem', 'client.pem', 'client-key.pem'].map(file => join(tls.directory, file))
  return tour(String(port)) && (tls === undefined || tour(String(tls.port), NAME, ...files))
}

function java (port: number, tls: Tls | undefined): boolean | string {
  if (lacks('mvn', '-v')) return 'no mvn on the path'
  const directory = join(packageRoot, 'test/clients/java')
  const tour = (args: string, ...properties: string[]): boolean => run('mvn', ['-q', '-B', 'compile', 'exec:java', `-Dexec.args=127.0.0.1 ${args}`, ...properties], directory)
  if (!tour(String(port))) return false
  if (tls === undefined) return true
  const at = (file: string): string => join(tls.directory, file)
  const stores = run('openssl', ['pkcs12', '-export', '-in', at('client.pem'), '-inkey', at('client-key.pem'), '-out', at('client.p12'), '-passout', `pass:${STORE_PASSWORD}`], directory) &&
    run('keytool', ['-importcert', '-noprompt', '-alias', 'authority', '-file', at('authority.pem'), '-keystore', at('trust.p12'), '-storepass', STORE_PASSWORD], directory)
  const property = (name: string, value: string): string => `-Djavax.net.ssl.${name}=${value}`
  return stores && tour(`${tls.port} ${NAME}`, property('trustStore', at('trust.p12')), property('trustStorePassword', STORE_PASSWORD),
    property('keyStore', at('client.p12')), property('keyStorePassword', STORE_PASSWORD))
}

const tours: Record<string, typeof java> = { java, python }

const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(tours)
const directory = tempDirectory('clients')
const tls = noOpenssl === false ? { port: await freePort(), directory } : undefined
if (tls !== undefined) {
  const authority = new Authority(directory, 'authority')
  authority.issue('node', NAME)
  authority.issue('client', 'tour')
}
const network = tls === undefined ? {} : {
  networkService: { 'tls-port': tls.port, 'tls-name': NAME },
  tls: [{ name: NAME, 'cert-file': join(directory, 'node.pem'), 'key-file': join(directory, 'node-key.pem'), 'ca-file': join(directory, 'authority.pem') }]
}
const node = await NodeProcess.start({
  name: 'clients', namespaces: [{ name: 'test', 'nsup-period': 10, 'storage-engine': { type: 'memory', 'data-size': '1G' } }], ...network
})
try {
  for (const name of wanted) {
    const tour = tours[name]
    if (tour === undefined) throw new Error(`no client is called ${name}; there are ${Object.keys(tours).join(', ')}`)
    const outcome = tour(node.port, tls)
    const without = tls === undefined ? `, without TLS: ${String(noOpenssl)}` : ''
    console.log(`${name}: ${typeof outcome === 'string' ? `skipped, ${outcome}` : outcome ? `passed${without}` : 'failed'}`)
    if (outcome === false) process.exitCode = 1
  }
} finally {
  await node.dispose()
  removeTempDirectory(directory)
}
