// Changes to a Kafka topic.
//
// Order. All versions of a record go to one partition, chosen by the digest: the text of the key may gain a user's key later, its digest
// never changes. The source hands out a second version of a record only after the first is settled, so order holds if a batch that was given
// up on cannot turn up later. With `acks: -1` it cannot: the producer is idempotent, and after a failure of unknown result the *same* batch
// is sent again under the same producer id and sequence until there is an answer, so that the broker drops the one that came second. A batch
// is composed anew only after a definite refusal, and then under a new producer id. With `acks` 0 or 1 an idempotent producer is not to be had;
// one request at a time is in flight, and a request that timed out in a stalled broker may still surface after a newer version.
//
// Every answer is checked: a partition that the broker's answer does not name counts as not sent. (When leadership moves in the middle of a
// send over several brokers, kafkajs 2.2.4 skips the moved partition and resolves.)

import { readFileSync } from 'node:fs'
import kafkajs, { type Kafka, type KafkaConfig, type Message, type Producer, type SASLOptions } from 'kafkajs'
import type { KafkaDatacenterConfig } from '../../config/schema.js'
import { Backoff } from '../backoff.js'
import { describeChange, type Change } from '../change.js'
import { LimitedLog, type Connector, type ConnectorOutcome, type Log } from '../connector.js'
import { formatByName, type Format } from '../format/format.js'
import { classify, type SendFault } from './errors.js'

export type KafkaOptions = KafkaDatacenterConfig['kafka']

/** A send stays below the 1 MiB that a broker takes by default, headroom for framing included. A larger record travels alone. */
const SEND_BYTES_MAX = 768 * 1024
/** kafkajs groups messages by partition in quadratic time; this bounds it. */
const SEND_MESSAGES_MAX = 2000
const MESSAGE_OVERHEAD_BYTES = 96
const BACKOFF_MIN_MS = 100
const BACKOFF_MAX_MS = 5000
const CONNECT_TIMEOUT_MS = 3000
const DISCONNECT_TIMEOUT_MS = 2000

/** A message with its place in the batch of changes, and where the partitioner put it (-1 before that). */
interface PlacedMessage extends Message {
  readonly change: number
  readonly hash: number
  readonly describe: Record<string, string>
  readonly bytes: number
  partition: number
}

/**
 * The partition of a message: by its record's digest, and the same for all repetitions. kafkajs asks again on a repetition of its own and keeps the
 * answers of the attempt before; if partitions were added in between, a message that moved would count as shipped by the answer for another one's batch.
 * (Fewer partitions than before is a topic that was made anew; then what was answered is gone anyway.)
 */
export function place (message: { readonly hash: number, partition: number }, partitions: number): number {
  if (message.partition < 0 || message.partition >= partitions) message.partition = message.hash % partitions
  return message.partition
}

export class KafkaConnector implements Connector {
  readonly #options: KafkaOptions
  readonly #format: Format
  readonly #log: Log
  readonly #faults: LimitedLog
  readonly #refusals: LimitedLog
  readonly #kafka: Kafka
  readonly #backoff = new Backoff(BACKOFF_MIN_MS, BACKOFF_MAX_MS)
  #closed = false
  #abort: (() => void) | undefined
  #producer: Producer | undefined
  #up = false
  #tail: Promise<void> = Promise.resolve()

  /** @throws when the certificate or password file cannot be read */
  constructor (options: KafkaOptions, log: Log) {
    this.#options = options
    this.#format = formatByName(options.format)
    this.#log = log
    this.#faults = new LimitedLog(log)
    this.#refusals = new LimitedLog(log)
    this.#kafka = new kafkajs.Kafka(clientConfig(options, log))
  }

  get nodes (): number {
    return this.#up ? this.#options.brokers.length : 0
  }

  async open (): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#connected()
        this.#up = true
        this.#backoff.reset()
        this.#log.info({ brokers: this.#options.brokers, topic: this.#options.topic }, 'kafka: connected')
        return
      } catch (error) {
        this.#faults.warn({ brokers: this.#options.brokers, ...classify(error) }, 'kafka: cannot connect, trying again')
        await this.#backoff.wait()
      }
    }
    throw new Error('kafka: closed before it was connected')
  }

  ship (changes: readonly Change[]): Promise<ConnectorOutcome[]> {
    const outcomes = new Array<ConnectorOutcome>(changes.length).fill('retry')
    const sends = this.#compose(changes, outcomes)
    const shipped = this.#tail.then(async () => {
      for (const send of sends) await this.#send(send, outcomes)
    })
    // One failure must not become that of every later batch, and of close.
    this.#tail = shipped.catch(() => {})
    return shipped.then(() => outcomes)
  }

  async close (): Promise<void> {
    if (this.#closed) return await this.#tail
    this.#closed = true
    this.#up = false
    this.#abort?.()
    this.#backoff.cancel()
    await this.#tail
    await this.#dropProducer()
  }

  /** Formats all changes and cuts them into sends. A change that cannot be formatted is abandoned here. */
  #compose (changes: readonly Change[], outcomes: ConnectorOutcome[]): PlacedMessage[][] {
    const sends: PlacedMessage[][] = []
    let send: PlacedMessage[] = []
    let sendBytes = 0
    for (const [index, change] of changes.entries()) {
      const message = this.#message(change, index)
      if (message === undefined) {
        outcomes[index] = 'abandoned'
        continue
      }
      if (send.length > 0 && (sendBytes + message.bytes > SEND_BYTES_MAX || send.length === SEND_MESSAGES_MAX)) {
        sends.push(send)
        send = []
        sendBytes = 0
      }
      send.push(message)
      sendBytes += message.bytes
    }
    if (send.length > 0) sends.push(send)
    return sends
  }

  #message (change: Change, index: number): PlacedMessage | undefined {
    try {
      const key = Buffer.from(this.#format.key(change))
      const value = Buffer.from(this.#format.value(change))
      return {
        key,
        value,
        // No timestamp: brokers delete and refuse by it, and the last-update time of an old record would make them do so.
        headers: { msg: change.kind, namespace: change.namespace, ...(change.set === '' ? {} : { set: change.set }), lut: String(change.lastUpdateMs) },
        change: index,
        hash: change.digest.readUInt32LE(4),
        describe: describeChange(change),
        bytes: key.length + value.length + MESSAGE_OVERHEAD_BYTES,
        partition: -1
      }
    } catch (error) {
      this.#refusals.warn({ ...describeChange(change), err: error }, 'kafka: a change cannot be formatted, abandoned')
      return undefined
    }
  }

  /** Ends when every message has its outcome, or on close (what is left stays `retry`). */
  async #send (messages: PlacedMessage[], outcomes: ConnectorOutcome[]): Promise<void> {
    while (!this.#closed && messages.length > 0) {
      try {
        messages = await this.#attempt(messages, outcomes)
        this.#up = !this.#closed
        if (messages.length === 0) this.#backoff.reset()
        else await this.#backoff.wait()
      } catch (error) {
        if (this.#closed) return
        const fault = classify(error)
        switch (fault.remedy) {
          case 'split': {
            if (messages.length === 1) return this.#abandon(messages, outcomes, fault)
            await this.#dropProducer()
            const half = messages.length >> 1
            await this.#send(messages.slice(0, half), outcomes)
            messages = messages.slice(half)
            break
          }
          case 'renew':
          case 'retry':
            if (fault.remedy === 'renew') await this.#dropProducer()
            this.#up = false
            this.#faults.warn({ topic: this.#options.topic, changes: messages.length, ...fault }, 'kafka: send failed, trying again')
            await this.#backoff.wait()
        }
      }
    }
  }

  /** One send. Returns the messages that the answer does not cover. */
  async #attempt (messages: PlacedMessage[], outcomes: ConnectorOutcome[]): Promise<PlacedMessage[]> {
    const { topic, acks, compression } = this.#options
    const sending = this.#connected().then((producer) => producer.sendBatch({
      acks,
      // kafkajs waits at least this long for an answer, whatever its own request timeout says.
      timeout: this.#options['request-timeout-ms'],
      compression: compression === 'gzip' ? kafkajs.CompressionTypes.GZIP : kafkajs.CompressionTypes.None,
      topicMessages: [{ topic, messages }]
    }))
    const answer = await this.#untilClosed(sending)
    if (answer === undefined) return messages
    const answered = new Set(answer.map((entry) => entry.partition))
    const left: PlacedMessage[] = []
    for (const message of messages) {
      if (acks === 0 || answered.has(message.partition)) outcomes[message.change] = 'shipped'
      else left.push(message)
    }
    return left
  }

  /** Sends follow one another, so one slot for the way out is enough. */
  #untilClosed<T> (work: Promise<T>): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      this.#abort = () => resolve(undefined)
      work.then(resolve, reject)
    })
  }

  #abandon (messages: PlacedMessage[], outcomes: ConnectorOutcome[], fault: SendFault): void {
    for (const message of messages) {
      outcomes[message.change] = 'abandoned'
      const refused = { topic: this.#options.topic, bytes: message.bytes, ...message.describe, ...fault }
      this.#refusals.warn(refused, 'kafka: the broker refuses a change for good, abandoned')
    }
  }

  async #connected (): Promise<Producer> {
    if (this.#producer !== undefined) return this.#producer
    const idempotent = this.#options.acks === -1
    const producer = this.#kafka.producer({
      idempotent,
      maxInFlightRequests: 1,
      createPartitioner: () => ({ partitionMetadata, message }) => place(message as PlacedMessage, partitionMetadata.length),
      // The fewest that kafkajs accepts: the loop above goes on without an end and, unlike the one in kafkajs, stops when it is told to, and takes
      // no answer of an earlier attempt for one of this.
      retry: { retries: idempotent ? 1 : 0, initialRetryTime: BACKOFF_MIN_MS, maxRetryTime: 1000 }
    })
    try {
      await producer.connect()
    } catch (error) {
      void producer.disconnect().catch(() => {})
      throw error
    }
    if (this.#closed) {
      void producer.disconnect().catch(() => {})
      throw new Error('closed')
    }
    this.#producer = producer
    return producer
  }

  async #dropProducer (): Promise<void> {
    const producer = this.#producer
    this.#producer = undefined
    if (producer === undefined) return
    // A broker that hangs must not hold us: what it answers now concerns nobody.
    let timer: NodeJS.Timeout | undefined
    await Promise.race([
      producer.disconnect().catch(() => {}),
      new Promise((resolve) => { timer = setTimeout(resolve, DISCONNECT_TIMEOUT_MS) })
    ])
    clearTimeout(timer)
  }
}

function clientConfig (options: KafkaOptions, log: Log): KafkaConfig {
  const limited = new LimitedLog(log)
  return {
    clientId: options['client-id'],
    brokers: options.brokers,
    connectionTimeout: CONNECT_TIMEOUT_MS,
    requestTimeout: options['request-timeout-ms'],
    retry: { retries: 2, initialRetryTime: BACKOFF_MIN_MS, maxRetryTime: 1000 },
    ssl: options['ssl-ca-file'] === undefined ? options.ssl : { ca: readFileSync(options['ssl-ca-file']) },
    ...(options.sasl === undefined ? {} : { sasl: saslOptions(options.sasl) }),
    logLevel: kafkajs.logLevel.INFO,
    // Its errors are retried here, so to us they are warnings; everything else is detail.
    logCreator: () => ({ level, namespace, log: { message, timestamp: _timestamp, logger: _logger, ...extra } }) => {
      if (level === kafkajs.logLevel.ERROR) limited.warn({ ...extra, part: namespace }, `kafka: ${message}`)
      else log.debug({ ...extra, part: namespace }, `kafka: ${message}`)
    }
  }
}

function saslOptions ({ mechanism, username, 'password-file': path }: NonNullable<KafkaOptions['sasl']>): SASLOptions {
  const password = readFileSync(path, 'utf8').split(/\r?\n/, 1)[0]!
  return { mechanism, username, password } as SASLOptions
}
