// The official Node.js client, which is a dependency of the tests only: it has a package of its own below
// test/official-client and is installed when a test command first needs it.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { packageRoot } from './package-root.js'

/** Where the client and what its test suite imports are installed. */
export const officialClientDirectory = join(packageRoot, 'test/official-client')

const LOCK = join(officialClientDirectory, 'package-lock.json')
const STAMP = join(officialClientDirectory, 'node_modules/.installed-lock-sha256')

/** Debian packages of the shared libraries that the prebuilt binding links; libstdc++ comes with Node.js itself. */
const LIBRARY_PACKAGES: ReadonlyMap<string, string> = new Map([
  ['libyaml-0.so.2', 'libyaml-0-2'],
  ['libz.so.1', 'zlib1g'],
  ['libstdc++.so.6', 'libstdc++6']
])

/** The suite and the client's tooling are loaded with require() though they are ES modules. */
function assertNodeVersion (): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19)) return
  throw new Error(`the official client's suite needs Node.js 20.19 or 22.12 and newer, this is ${process.version}`)
}

function lockDigest (): string {
  return createHash('sha256').update(readFileSync(LOCK)).digest('hex')
}

/** npm describes the package that it runs a script of in its environment; a second npm in there must not take that for its own. */
function environmentForNpm (): NodeJS.ProcessEnv {
  const foreign = /^(npm_package_|npm_lifecycle_|npm_command$|npm_config_(local_)?prefix$|npm_config_ignore_scripts$|INIT_CWD$)/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)))
}

function install (): void {
  const npm = process.env.npm_execpath
  const [command, ...first] = npm !== undefined && /\bnpm-cli\.[cm]?js$/.test(npm) ? [process.execPath, npm] : ['npm']
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const result = spawnSync(command as string, [...first, ...args], {
    cwd: officialClientDirectory,
    env: environmentForNpm(),
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8'
  })
  if (result.status === 0) return
  const reason = result.error?.message ?? result.stderr.trim().split('\n').slice(-8).join('\n')
  throw new Error(`could not install the official client (npm ci in test/official-client):\n${reason}`)
}

function assertLoads (): void {
  const result = spawnSync(process.execPath, ['-e', 'require("aerospike")'], { cwd: officialClientDirectory, encoding: 'utf8' })
  if (result.status === 0) return
  const library = /(\S+\.so[.\d]*): cannot open shared object file/.exec(result.stderr)?.[1]
  if (library !== undefined) {
    const name = LIBRARY_PACKAGES.get(library)
    const advice = name === undefined ? 'install the package that holds it' : `on Debian or Ubuntu: apt-get install ${name}`
    throw new Error(`the official client's binding needs the system library ${library}: ${advice}`)
  }
  const reason = result.stderr.split('\n').find(line => /Error/.test(line)) ?? result.stderr.trim()
  throw new Error(`the official client does not load on Node.js ${process.version} ${process.platform}-${process.arch}: ${reason}`)
}

/**
 * Installs the client when it is missing or its lock file has changed, and checks that its binding loads. Throws one error
 * that says what to do.
 */
export function ensureInstalled (progress: (line: string) => void = line => { console.error(line) }): void {
  assertNodeVersion()
  const digest = lockDigest()
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === digest) return
  progress('installing the official client for the tests (npm ci in test/official-client) ...')
  const started = Date.now()
  install()
  assertLoads()
  writeFileSync(STAMP, digest)
  progress(`installed in ${((Date.now() - started) / 1000).toFixed(1)} s`)
}

/** Resolves modules as the installed client's own files would. */
export const requireOfficial = createRequire(join(officialClientDirectory, 'package.json'))

// The part of the client's interface that the tests use. The package ships its own declarations, but this repository must
// compile before the package is installed.

export type OfficialKey = object
export type Bins = Record<string, unknown>

export interface OfficialRecord { key: OfficialKey, bins: Bins, ttl: number, gen: number }

export interface OfficialError extends Error { code: number }

export interface OfficialClient {
  connect (): Promise<OfficialClient>
  close (): void
  put (key: OfficialKey, bins: Bins, meta?: object | null, policy?: object | null): Promise<OfficialKey>
  get (key: OfficialKey, policy?: object | null): Promise<OfficialRecord>
  exists (key: OfficialKey): Promise<boolean>
  select (key: OfficialKey, bins: string[]): Promise<OfficialRecord>
  remove (key: OfficialKey, policy?: object | null): Promise<OfficialKey>
  operate (key: OfficialKey, operations: object[], meta?: object | null, policy?: object | null): Promise<OfficialRecord>
  apply (key: OfficialKey, udf: { module: string, funcname: string, args?: unknown[] }, policy?: object | null): Promise<unknown>
  udfRegister (path: string): Promise<{ wait (pollIntervalMs?: number): Promise<unknown> }>
  udfRemove (module: string): Promise<{ wait (pollIntervalMs?: number): Promise<unknown> }>
  batchRead (rows: Array<{ key: OfficialKey, readAllBins: boolean }>, policy?: object | null): Promise<Array<{ status: number, record: OfficialRecord }>>
  query (namespace: string, set: string): { results (policy?: object | null): Promise<OfficialRecord[]> }
  infoAny (command: string): Promise<string>
}

export interface OfficialModule {
  client (config: object): OfficialClient
  releaseEventLoop (): void
  Key: new (namespace: string, set: string, key: string | number | bigint | Buffer | null, digest?: Buffer) => OfficialKey
  Double: new (value: number) => object
  GeoJSON: new (value: object | string) => object & { value (): unknown }
  operations: Record<string, (...args: never[]) => object> & {
    read (bin: string): object
    write (bin: string, value: unknown): object
    incr (bin: string, value: number): object
    append (bin: string, value: string): object
    prepend (bin: string, value: string): object
    touch (ttl: number): object
    delete (): object
  }
  policy: { exists: Record<string, number>, gen: Record<string, number>, key: Record<string, number> }
  status: Record<string, number>
  ttl: Record<string, number>
}

/** The installed client; call `ensureInstalled` first. */
export function loadOfficialClient (): OfficialModule {
  const client = requireOfficial('aerospike') as OfficialModule & { setDefaultLogging (options: object): void, log: { OFF: number } }
  // Nodes go down on purpose in these tests; its remarks about that only bury what matters.
  client.setDefaultLogging({ level: client.log.OFF })
  return client
}

export interface OfficialTls {
  /** What the certificate has to carry. */
  name: string
  /** The `tls` section of the client's configuration. */
  files: { cafile: string, certfile?: string, keyfile?: string, protocols?: string }
}

/** A connected client to one node; `totalTimeout` applies to every kind of command, `luaPath` has the modules of aggregations. */
export async function connectOfficial (port: number, { totalTimeout = 5_000, tls, luaPath }: { totalTimeout?: number, tls?: OfficialTls, luaPath?: string } = {}): Promise<OfficialClient> {
  const policy = { totalTimeout, maxRetries: 0 }
  const names = ['read', 'write', 'remove', 'operate', 'apply', 'batch', 'info', 'scan', 'query']
  return await loadOfficialClient().client({
    hosts: [{ addr: '127.0.0.1', port, ...(tls === undefined ? {} : { tlsname: tls.name }) }],
    ...(tls === undefined ? {} : { tls: tls.files }),
    log: { level: -1 },
    ...(luaPath === undefined ? {} : { modlua: { userPath: luaPath } }),
    maxConnsPerNode: 200,
    policies: Object.fromEntries(names.map(name => [name, policy]))
  }).connect()
}

/** The result code that a command of the client failed with; fails when the command succeeds. */
export async function codeOf (command: Promise<unknown>): Promise<number> {
  try {
    await command
  } catch (error) {
    const { code } = error as OfficialError
    if (typeof code !== 'number') throw error
    return code
  }
  throw new Error('expected the command to fail, but it succeeded')
}
