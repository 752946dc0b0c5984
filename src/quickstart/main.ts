// `perigee quickstart`: two datacenters on this machine that ship to each other, a Lua module, a change stream, and the
// cities of the world to try them on.
import { createReadStream, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import kafkajs from 'kafkajs'
import { NAMESPACE, SET, UDF_MODULE, loadCities, type CityRecord } from './cities.js'
import { Progress } from './progress.js'
import { ADDRESS, QuickstartError, Site, assertPortFree } from './site.js'
import { CityStore } from './store.js'

const WEST_PORT_OFFSET = 1000
const FILE_SIZE = '512M'
const READY_TIMEOUT_MS = 60_000
const SETTLE_TIMEOUT_MS = 300_000
const SETTLE_POLL_MS = 100
const VISITED_CITIES = 4_000
const CHANGES_SHOWN = 3
const CHANGES_SHOWN_BYTES = 4_096
const KAFKA_TOPIC = 'perigee-cities'
const LUA_FILE = fileURLToPath(new URL('../../../src/quickstart/cities.lua', import.meta.url))

const BERLIN = { lon: 13.41053, lat: 52.52437 }
const TOKYO_ID = 85054

export interface QuickstartOptions {
  /** Do everything once, print one line of JSON on stdout, end. */
  once: boolean
  /** Where the nodes keep their files. */
  directory?: string
  /** East's port; west's is a thousand above it. */
  basePort?: number
}

/** What `--once` prints. */
export interface QuickstartReport {
  cities: number
  east_objects: number
  west_objects: number
  udf_calls: number
  /** The largest lag seen at either side from the first write to the end. */
  xdr_lag_ms_max: number
  /** Changes that the stream's destination has confirmed since the start. */
  changes_streamed: number
  seconds: number
}

/** Resolves when it is over; a failure is printed and becomes the exit code. */
export async function quickstart (options: QuickstartOptions): Promise<void> {
  const quickstart = new Quickstart(options)
  const stopSignal = new Promise<null>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        quickstart.stopping = true
        resolve(null)
      })
    }
  })
  try {
    await Promise.race([quickstart.run(), stopSignal])
    if (!options.once && !quickstart.stopping) await Promise.race([quickstart.failed(), stopSignal])
    if (quickstart.stopping) console.error('\nstopping both datacenters ...')
  } catch (error) {
    if (!quickstart.stopping) {
      console.error(`perigee quickstart: ${quickstart.explain(error)}`)
      process.exitCode = 1
    }
  } finally {
    await quickstart.stop()
    // A step that was interrupted may still hold sockets or timers.
    if (quickstart.stopping) process.exit()
  }
}

class Quickstart {
  stopping = false
  readonly #once: boolean
  readonly #directory: string
  readonly #eastPort: number
  readonly #westPort: number
  readonly #kafka: string[]
  #sites: Site[] = []
  #stores: CityStore[] = []
  #lagMsMax = 0

  constructor ({ once, directory = './data', basePort = 3000 }: QuickstartOptions) {
    this.#once = once
    this.#directory = resolve(directory)
    this.#eastPort = basePort
    this.#westPort = basePort + WEST_PORT_OFFSET
    this.#kafka = (process.env.PERIGEE_KAFKA ?? '').split(',').map(broker => broker.trim()).filter(broker => broker !== '')
  }

  async run (): Promise<void> {
    const started = Date.now()
    await this.#startSites()
    const [east, west] = this.#stores as [CityStore, CityStore]
    const work = this.#work(east, west, started)
    await Promise.race([work, this.failed()])
  }

  /** Rejects when a node ends though nobody asked it to. */
  async failed (): Promise<never> {
    return await Promise.race(this.#sites.map(site => site.failed()))
  }

  /** Ends both nodes. Calling it twice is harmless. */
  async stop (): Promise<void> {
    for (const store of this.#stores.splice(0)) await store.close()
    await Promise.all(this.#sites.splice(0).map(site => site.stop()))
  }

  /** What went wrong, for the user; with PERIGEE_DEBUG also where. */
  explain (error: unknown): string {
    if (!(error instanceof Error)) return String(error)
    if (error instanceof QuickstartError) return error.message
    const text = (process.env.PERIGEE_DEBUG ?? '') !== '' ? error.stack ?? error.message : error.message
    return this.#sites.length === 0 ? text : `${text}\nThe nodes' logs: ${this.#sites.map(({ logPath }) => shown(logPath)).join(', ')}`
  }

  get #changesPath (): string {
    return join(this.#directory, 'changes.jsonl')
  }

  async #startSites (): Promise<void> {
    const ports = [this.#eastPort, this.#westPort]
    if (ports.some(port => !Number.isInteger(port) || port < 1 || port > 65_535)) {
      throw new QuickstartError(`ports ${ports.join(' and ')} are not possible: --base-port takes 1 to ${65_535 - WEST_PORT_OFFSET}`)
    }
    for (const port of ports) await assertPortFree(port, ports)
    if (this.#kafka.length > 0) await createTopic(this.#kafka, KAFKA_TOPIC)
    mkdirSync(this.#directory, { recursive: true })
    const before = existsSync(join(this.#directory, 'east')) ? ', going on with what is there' : ''
    this.#say(`starting two datacenters, files in ${shown(this.#directory)}${before} ...`)
    const east = Site.start('east', this.#eastPort, join(this.#directory, 'east'), this.#config('east', this.#eastPort, [
      clusterDatacenter('west', this.#westPort), this.#changeStream()
    ]))
    const west = Site.start('west', this.#westPort, join(this.#directory, 'west'), this.#config('west', this.#westPort, [
      clusterDatacenter('east', this.#eastPort)
    ]))
    this.#sites = [east, west]
    await Promise.all(this.#sites.map(site => site.ready(() => CityStore.answers(ADDRESS, site.port), READY_TIMEOUT_MS)))
    for (const { port } of this.#sites) this.#stores.push(await CityStore.connect(ADDRESS, port))
    this.#say(`east answers on ${ADDRESS}:${this.#eastPort}, west on ${ADDRESS}:${this.#westPort}; each ships to the other`)
  }

  #config (name: string, port: number, dcs: object[]): object {
    const directory = join(this.#directory, name)
    return {
      service: { 'work-directory': join(directory, 'work'), 'shmem-directory': join(directory, 'shmem') },
      network: { service: { address: ADDRESS, port } },
      namespaces: [{
        name: NAMESPACE,
        'storage-engine': { type: 'device', files: [join(directory, `${NAMESPACE}.dat`)], filesize: FILE_SIZE }
      }],
      xdr: { dcs }
    }
  }

  #changeStream (): object {
    const namespaces = [{ name: NAMESPACE }]
    return this.#kafka.length > 0
      ? { name: 'changes', type: 'kafka', kafka: { brokers: this.#kafka, topic: KAFKA_TOPIC, format: 'flat-json' }, namespaces }
      : { name: 'changes', type: 'file', file: { path: this.#changesPath, format: 'flat-json' }, namespaces }
  }

  async #work (east: CityStore, west: CityStore, started: number): Promise<void> {
    const changesBefore = existsSync(this.#changesPath) ? statSync(this.#changesPath).size : 0
    const lua = readFileSync(LUA_FILE, 'utf8')
    await Promise.all(this.#stores.map(store => store.registerModule(`${UDF_MODULE}.lua`, lua)))
    this.#say('registered the Lua module cities.lua on both sides')

    const cities = loadCities()
    await this.#writeCities(east, cities)
    const udfCalls = await this.#visitCities(east, cities)
    await this.#settled(east, west)

    const [eastObjects, westObjects] = [await east.objects(), await west.objects()]
    const report: QuickstartReport = {
      cities: cities.length,
      east_objects: eastObjects,
      west_objects: westObjects,
      udf_calls: udfCalls,
      xdr_lag_ms_max: this.#lagMsMax,
      changes_streamed: (await east.shipping('changes')).success,
      seconds: Math.round((Date.now() - started) / 100) / 10
    }
    if (this.#once) {
      process.stdout.write(JSON.stringify(report) + '\n')
      return
    }
    this.#show(report, await this.#firstChanges(changesBefore), await east.readCity(TOKYO_ID))
  }

  async #writeCities (east: CityStore, cities: CityRecord[]): Promise<void> {
    const progress = new Progress('writing cities to east', cities.length)
    await east.writeCities(cities, done => { progress.update(done) })
    progress.end()
    await this.#watchLag()
  }

  async #visitCities (east: CityStore, cities: readonly CityRecord[]): Promise<number> {
    const largest = cities.toSorted((left, right) => right.population - left.population).slice(0, VISITED_CITIES)
    const progress = new Progress('visiting cities with Lua', largest.length)
    await east.applyToCities(largest, 'visit', ['quickstart', BERLIN.lon, BERLIN.lat], done => { progress.update(done) })
    progress.end()
    await this.#watchLag()
    return largest.length
  }

  /** Waits until both sides hold the same number of records and nothing waits anywhere. */
  async #settled (east: CityStore, west: CityStore): Promise<void> {
    const deadline = Date.now() + SETTLE_TIMEOUT_MS
    const total = await east.objects()
    const progress = new Progress('shipping to west', total)
    for (;;) {
      const arrived = await west.objects()
      progress.update(Math.min(arrived, total))
      const waiting = await this.#watchLag()
      if (waiting === 0 && arrived === await east.objects()) break
      if (Date.now() > deadline) {
        progress.end()
        throw new QuickstartError(`west has ${arrived} of ${total} records and ${waiting} changes still wait after ${SETTLE_TIMEOUT_MS / 1000} s; ` +
          `see ${this.#sites.map(({ logPath }) => logPath).join(' and ')}`)
      }
      await sleep(SETTLE_POLL_MS)
    }
    progress.end()
  }

  /** Notes the lag of every datacenter; returns how many changes are on their way, a lag counting as one. */
  async #watchLag (): Promise<number> {
    const [east, west] = this.#stores as [CityStore, CityStore]
    let waiting = 0
    for (const [store, dc] of [[east, 'west'], [east, 'changes'], [west, 'east']] as const) {
      const shipping = await store.shipping(dc)
      this.#lagMsMax = Math.max(this.#lagMsMax, shipping.lagMs)
      waiting += shipping.waiting + (shipping.lagMs > 0 ? 1 : 0)
    }
    return waiting
  }

  /** The first lines that this run has put into the file of changes; none when they go to Kafka. */
  async #firstChanges (from: number): Promise<string[]> {
    if (this.#kafka.length > 0 || !existsSync(this.#changesPath)) return []
    let text = ''
    for await (const chunk of createReadStream(this.#changesPath, { start: from, end: from + CHANGES_SHOWN_BYTES, encoding: 'utf8' })) text += String(chunk)
    return text.split('\n').slice(0, -1).slice(0, CHANGES_SHOWN)
  }

  #show (report: QuickstartReport, changes: readonly string[], tokyo: string): void {
    const count = (n: number): string => n.toLocaleString('en')
    const stream = this.#kafka.length > 0 ? `the Kafka topic ${KAFKA_TOPIC} at ${this.#kafka.join(',')}` : shown(this.#changesPath)
    const lines = [
      '',
      `  east    ${count(report.east_objects)} records`,
      `  west    ${count(report.west_objects)} records, all of them shipped; the largest lag on the way was ${report.xdr_lag_ms_max} ms`,
      `  Lua     ${count(report.udf_calls)} cities visited`,
      `  stream  ${count(report.changes_streamed)} changes in ${stream}`,
      ...changes.map(line => `            ${line.length > 150 ? `${line.slice(0, 150)} ...` : line}`),
      `  all of it in ${report.seconds} s`,
      '',
      `Tokyo, as east has it: ${tokyo}`,
      '',
      'Both datacenters stay up until Ctrl-C. To try next, with the official client (npm install aerospike) in a file try.js:',
      '',
      ...this.#program().map(line => `    ${line}`),
      '',
      'and with the command line:',
      '',
      `    node bin/perigee.js info --port ${this.#eastPort} statistics`,
      `    node bin/perigee.js xdr status --port ${this.#eastPort}`,
      ...(this.#kafka.length > 0 ? [] : [`    tail -f ${stream}`]),
      '',
      'docs/guides/quickstart.md has more.'
    ]
    console.log(lines.join('\n'))
  }

  #program (): string[] {
    return `
const Aerospike = require('aerospike')

async function main () {
  const east = await Aerospike.client({ hosts: '${ADDRESS}:${this.#eastPort}' }).connect()
  const west = await Aerospike.client({ hosts: '${ADDRESS}:${this.#westPort}' }).connect()
  const tokyo = new Aerospike.Key('${NAMESPACE}', '${SET}', ${TOKYO_ID})

  console.log((await east.get(tokyo)).bins)
  const call = { module: '${UDF_MODULE}', funcname: 'distance', args: [${BERLIN.lon}, ${BERLIN.lat}] }
  console.log('kilometres from Berlin:', await east.apply(tokyo, call))

  await west.put(tokyo, { motto: 'written in the west' })
  await new Promise(resolve => setTimeout(resolve, 500))
  console.log('read in the east:', (await east.get(tokyo)).bins.motto)
  east.close()
  west.close()
}

main()`.trim().split('\n')
  }

  /** For people; with --once stdout belongs to the report. */
  #say (line: string): void {
    if (this.#once) console.error(line)
    else console.log(line)
  }
}

/** A path as a user would type it here. */
function shown (path: string): string {
  const short = relative(process.cwd(), path)
  return short.startsWith('..') ? path : short || '.'
}

/** Makes the topic when it is missing, with the broker's own defaults. */
async function createTopic (brokers: string[], topic: string): Promise<void> {
  const admin = new kafkajs.Kafka({
    clientId: 'perigee-quickstart', brokers, logLevel: kafkajs.logLevel.NOTHING, retry: { retries: 2 }
  }).admin()
  try {
    await admin.connect()
    await admin.createTopics({ topics: [{ topic }], waitForLeaders: true })
  } catch (error) {
    throw new QuickstartError(`PERIGEE_KAFKA=${brokers.join(',')}: ${error instanceof Error ? error.message : String(error)}`)
  } finally {
    await admin.disconnect().catch(() => { /* It was not connected, and that has been said. */ })
  }
}

function clusterDatacenter (name: string, port: number): object {
  return { name, type: 'cluster', 'node-address-ports': [`${ADDRESS}:${port}`], namespaces: [{ name: NAMESPACE }] }
}
