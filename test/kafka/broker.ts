// A real Apache Kafka broker for tests: resolved from Maven Central once (test/kafka/broker/pom.xml, jars under its target/), then run on
// Java 17 or newer as a single KRaft node on free loopback ports, with its data in a directory of its own. `stop` and `kill` leave the data;
// `start` comes back on it, on the same ports.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import kafkajs from 'kafkajs'
import { packageRoot } from '../support/package-root.js'
import { freePort } from '../support/ports.js'
import { removeTempDirectory, tempDirectory } from '../support/temp.js'

const JAVA_MAJOR_MIN = 17
const READY_MS_MAX = 60_000
const STOP_MS_MAX = 20_000
const POM = join(packageRoot, 'test/kafka/broker/pom.xml')

/** Jars to run, or why there is nothing to run. */
export type KafkaDistribution = { readonly classpath: string } | { readonly missing: string }

/** Finds Java and the broker's jars; fetches those when they are not there yet. Never throws for a tool that is missing. */
export async function resolveKafka (): Promise<KafkaDistribution> {
  const java = javaMajor()
  if (java === undefined) return { missing: `no java on the path (${JAVA_MAJOR_MIN} or newer is needed)` }
  if (java < JAVA_MAJOR_MIN) return { missing: `java ${java} is too old (${JAVA_MAJOR_MIN} or newer is needed)` }
  const jars = join(dirname(POM), 'target', 'lib')
  if (!existsSync(jars)) {
    if (spawnSync('mvn', ['-v'], { stdio: 'ignore' }).status !== 0) return { missing: 'no mvn on the path, and the broker was not resolved before' }
    // Resolved beside and renamed, so that an interrupted run leaves nothing that looks whole.
    const partial = `${jars}.${process.pid}`
    const maven = spawnSync('mvn', ['-q', '-B', '-f', POM, 'dependency:copy-dependencies', `-DoutputDirectory=${partial}`], { encoding: 'utf8' })
    if (maven.status !== 0) return { missing: `mvn cannot resolve Kafka: ${(maven.stdout + maven.stderr).trim().slice(0, 500)}` }
    await rename(partial, jars).catch(async (error: unknown) => {
      if (!existsSync(jars)) throw error
      await rm(partial, { recursive: true, force: true })
    })
  }
  return { classpath: join(jars, '*') }
}

export class KafkaBroker {
  readonly #classpath: string
  readonly #directory: string
  readonly #properties: string
  readonly port: number
  #process: ChildProcess | undefined

  private constructor (classpath: string, directory: string, port: number) {
    this.#classpath = classpath
    this.#directory = directory
    this.#properties = join(directory, 'server.properties')
    this.port = port
  }

  get address (): string {
    return `127.0.0.1:${this.port}`
  }

  /** A formatted, stopped broker. `properties` are added to its configuration. */
  static async create (distribution: { readonly classpath: string }, properties: Readonly<Record<string, string>> = {}): Promise<KafkaBroker> {
    const directory = tempDirectory('kafka')
    const port = await freePort()
    const controllerPort = await freePort()
    const broker = new KafkaBroker(distribution.classpath, directory, port)
    const data = join(directory, 'data')
    await mkdir(data)
    const settings = {
      'process.roles': 'broker,controller',
      'node.id': '1',
      'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
      'controller.listener.names': 'CONTROLLER',
      'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
      listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
      'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
      'log.dirs': data,
      'offsets.topic.replication.factor': '1',
      'offsets.topic.num.partitions': '1',
      'transaction.state.log.replication.factor': '1',
      'transaction.state.log.min.isr': '1',
      'group.initial.rebalance.delay.ms': '0',
      'auto.create.topics.enable': 'false',
      'num.network.threads': '2',
      'num.io.threads': '4',
      'log.cleaner.enable': 'false',
      'broker.session.timeout.ms': '5000',
      ...properties
    }
    await writeFile(broker.#properties, Object.entries(settings).map(([key, value]) => `${key}=${value}\n`).join(''))
    const format = spawnSync('java',
      [...broker.#javaArguments(), 'kafka.tools.StorageTool', 'format', '-t', clusterId(), '-c', broker.#properties], { encoding: 'utf8' })
    if (format.status !== 0) throw new Error(`kafka: cannot format ${data}: ${format.stdout}${format.stderr}`)
    return broker
  }

  /** Resolves when the broker answers; what it says goes to `broker.log` in its directory. */
  async start (): Promise<void> {
    if (this.#process !== undefined) throw new Error('kafka: running already')
    const log = await open(this.#logPath(), 'a')
    const child = spawn('java', [...this.#javaArguments(), 'kafka.Kafka', this.#properties], { stdio: ['ignore', log.fd, log.fd] })
    await log.close()
    this.#process = child
    // A broker must not outlive the tests, however they end.
    const killNow = (): void => { child.kill('SIGKILL') }
    process.once('exit', killNow)
    child.once('exit', () => {
      process.off('exit', killNow)
      if (this.#process === child) this.#process = undefined
    })
    await this.#ready(child)
  }

  /** An orderly shutdown. */
  async stop (): Promise<void> {
    await this.#end('SIGTERM')
  }

  /** The process dies at once. */
  async kill (): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** The process stops running but keeps its connections, until `resume`. */
  pause (): void {
    this.#process?.kill('SIGSTOP')
  }

  resume (): void {
    this.#process?.kill('SIGCONT')
  }

  /** Stops the broker and removes its data. */
  async remove (): Promise<void> {
    await this.kill()
    removeTempDirectory(this.#directory)
  }

  async createTopic (topic: string, partitions: number, config: Readonly<Record<string, string>> = {}): Promise<void> {
    const admin = this.client('perigee-test-admin').admin()
    await admin.connect()
    try {
      const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
      await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }] })
    } finally {
      await admin.disconnect()
    }
  }

  client (clientId: string): kafkajs.Kafka {
    const retry = { retries: 8, initialRetryTime: 100, maxRetryTime: 1000 }
    return new kafkajs.Kafka({ clientId, brokers: [this.address], logLevel: kafkajs.logLevel.NOTHING, retry })
  }

  async #ready (child: ChildProcess): Promise<void> {
    const deadline = Date.now() + READY_MS_MAX
    for (;;) {
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`kafka: ended with ${child.exitCode ?? child.signalCode}\n${await this.#logTail()}`)
      }
      const once = { connectionTimeout: 500, retry: { retries: 0 } }
      const admin = new kafkajs.Kafka({ brokers: [this.address], logLevel: kafkajs.logLevel.NOTHING, ...once }).admin()
      try {
        await admin.connect()
        const { brokers, controller } = await admin.describeCluster()
        if (brokers.length > 0 && controller !== null) return
      } catch {
        // not yet
      } finally {
        await admin.disconnect().catch(() => {})
      }
      if (Date.now() > deadline) throw new Error(`kafka: not ready within ${READY_MS_MAX} ms\n${await this.#logTail()}`)
      await sleep(200)
    }
  }

  async #end (signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.#process
    if (child === undefined) return
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    child.kill('SIGCONT')
    child.kill(signal)
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX)
    await ended
    clearTimeout(timer)
  }

  #javaArguments (): string[] {
    return ['-Xms64m', '-Xmx320m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-cp', this.#classpath]
  }

  #logPath (): string {
    return join(this.#directory, 'broker.log')
  }

  async #logTail (): Promise<string> {
    return (await readFile(this.#logPath(), 'utf8').catch(() => '')).slice(-2000)
  }
}

function javaMajor (): number | undefined {
  const { stderr, stdout, status } = spawnSync('java', ['-version'], { encoding: 'utf8' })
  if (status !== 0) return undefined
  const match = /version "(?:1\.)?(\d+)/.exec(stderr + stdout)
  return match === null ? undefined : Number(match[1])
}

/** 16 bytes in URL-safe base64; a leading dash would be read as an option. */
function clusterId (): string {
  const id = randomBytes(16).toString('base64url')
  return id.startsWith('-') ? clusterId() : id
}
