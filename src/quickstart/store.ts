// What the quickstart asks of one datacenter.
import { Client, Double, GeoJSON, infoError, infoOnce, parsePairs, type Bins, type Key, type Value } from '../client/index.js'
import { NAMESPACE, SET, UDF_MODULE, type CityRecord } from './cities.js'

const CONNECTIONS = 4
const IN_FLIGHT_PER_CONNECTION = 64
/** Requests under way at one time. The connections carry them pipelined. */
const UNDER_WAY = CONNECTIONS * IN_FLIGHT_PER_CONNECTION
const INFO_TIMEOUT_MS = 5_000
const REQUEST_TIMEOUT_MS = 10_000
/** A node that is busy or behind with its device says so; the load then waits for it, up to the time limit. */
const RETRIES_MAX = 200

/** How shipping to one datacenter goes. */
export interface Shipping {
  lagMs: number
  /** Changes queued, in flight, or waiting for a partition to be walked. */
  waiting: number
  success: number
}

export class CityStore {
  #client: Client

  private constructor (client: Client) {
    this.#client = client
  }

  /** Whether a node is there and owns its partitions. */
  static async answers (host: string, port: number): Promise<boolean> {
    const values = await infoOnce({ host, port, connectTimeoutMs: INFO_TIMEOUT_MS }, ['status', 'partition-generation'], INFO_TIMEOUT_MS)
    return values.get('status') === 'ok' && Number(values.get('partition-generation')) >= 0
  }

  static async connect (host: string, port: number): Promise<CityStore> {
    return new CityStore(await Client.connect({
      hosts: [{ host, port }],
      timeoutMs: REQUEST_TIMEOUT_MS,
      retriesMax: RETRIES_MAX,
      connectionsMax: CONNECTIONS,
      inFlightMax: IN_FLIGHT_PER_CONNECTION
    }))
  }

  async close (): Promise<void> {
    await this.#client.close()
  }

  async registerModule (filename: string, source: string): Promise<void> {
    const content = Buffer.from(source).toString('base64')
    await this.#info(`udf-put:filename=${filename};content=${content};content-len=${content.length};udf-type=LUA;`)
  }

  /** Writes every city, many requests at a time. Bins that others have added stay. */
  async writeCities (cities: readonly CityRecord[], onProgress: (done: number) => void): Promise<void> {
    await forEachPipelined(cities, async city => { await this.#client.put(keyOf(city.id), binsOf(city), { sendKey: true }) }, onProgress)
  }

  /** Runs a function of the Lua module on every city given. Rejects with the first failure. */
  async applyToCities (cities: readonly CityRecord[], name: string, args: readonly Value[], onProgress: (done: number) => void): Promise<void> {
    await forEachPipelined(cities, async city => { await this.#client.apply(keyOf(city.id), UDF_MODULE, name, args) }, onProgress)
  }

  async objects (): Promise<number> {
    return Number(parsePairs(await this.#info(`namespace/${NAMESPACE}`)).get('objects'))
  }

  async shipping (dc: string): Promise<Shipping> {
    const stats = parsePairs(await this.#info(`get-stats:context=xdr;dc=${dc}`))
    const number = (name: string): number => Number(stats.get(name) ?? 0)
    return {
      lagMs: number('lag_ms'),
      waiting: number('in_queue') + number('in_progress') + number('recoveries_pending'),
      success: number('success')
    }
  }

  /** A city's bins as one line of JSON. */
  async readCity (id: number): Promise<string> {
    const record = await this.#client.get(keyOf(id))
    return record === null ? 'no such record' : JSON.stringify(record.bins)
  }

  async #info (command: string): Promise<string> {
    const value = await this.#client.info(command, { timeoutMs: INFO_TIMEOUT_MS })
    const error = infoError(command, value)
    if (error !== undefined) throw error
    return value
  }
}

function keyOf (id: number): Key {
  return { namespace: NAMESPACE, set: SET, key: id }
}

function binsOf ({ name, country, population, lon, lat, areas, feature, altCountry }: CityRecord): Bins {
  return {
    name,
    country,
    population,
    location: new GeoJSON({ type: 'Point', coordinates: [lon, lat] }),
    // A whole degree must not become an integer: a bin keeps one type over all records.
    place: { coordinates: [new Double(lon), new Double(lat)], areas, feature },
    ...(altCountry === '' ? {} : { alt_country: altCountry })
  }
}

/** Runs `request` for every item with a bounded number under way; the first failure ends it. */
async function forEachPipelined<T> (items: readonly T[], request: (item: T) => Promise<void>, onProgress: (done: number) => void): Promise<void> {
  let next = 0
  let done = 0
  let failed = false
  const lane = async (): Promise<void> => {
    while (next < items.length && !failed) {
      try {
        await request(items[next++] as T)
      } catch (error) {
        failed = true
        throw error
      }
      onProgress(++done)
    }
  }
  await Promise.all(Array.from({ length: Math.min(UNDER_WAY, items.length) }, lane))
}
