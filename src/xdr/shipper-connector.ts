import { decodeChange, type Change } from '../../connectors/change.js'
import { LimitedLog, type Connector, type ConnectorOutcome, type Log } from '../../connectors/connector.js'
import { FrameError } from '../client/message.js'
import type { ChangeEntry } from './batch.js'
import { ShipGroup, Verdict, type Settle, type Shipper } from './shipper.js'

const VERDICTS: Readonly<Record<ConnectorOutcome, Verdict>> = { shipped: Verdict.SHIPPED, retry: Verdict.RETRY_DEST, abandoned: Verdict.ABANDONED }

/** Ships to a connector: the confirmation of the stream behind it is the confirmation of the change. */
export class ConnectorShipper implements Shipper {
  readonly #connector: Connector
  readonly #settle: Settle
  readonly #malformed: LimitedLog
  readonly #faults: LimitedLog
  /** Batches in the connector's hands; `close` waits for them to come back. */
  readonly #pending = new Set<Promise<void>>()

  constructor (connector: Connector, settle: Settle, log: Log) {
    this.#connector = connector
    this.#settle = settle
    this.#malformed = new LimitedLog(log)
    this.#faults = new LimitedLog(log)
  }

  get nodes (): number {
    return this.#connector.nodes
  }

  async open (): Promise<void> {
    await this.#connector.open()
  }

  ship (entries: readonly ChangeEntry[]): void {
    const group = new ShipGroup(entries, performance.now())
    const changes: Change[] = []
    const placed: number[] = []
    for (const [index, entry] of entries.entries()) {
      try {
        changes.push(decodeChange(entry.frame, entry.voidTimeSeconds))
        placed.push(index)
      } catch (error) {
        if (!(error instanceof FrameError)) throw error
        group.verdicts[index] = Verdict.ABANDONED
        this.#malformed.warn({ partition: entry.partition, bytes: entry.frameBytes, err: error }, 'xdr: a change is malformed, abandoned')
      }
    }
    const pending = this.#outcomes(changes).then((outcomes) => {
      for (const [at, index] of placed.entries()) group.verdicts[index] = VERDICTS[outcomes[at] ?? 'retry']
      this.#pending.delete(pending)
      this.#settle(group)
    })
    this.#pending.add(pending)
  }

  /** None when the connector fails, against its promise: the batch is then retried, since nobody knows what became of it. */
  async #outcomes (changes: readonly Change[]): Promise<readonly ConnectorOutcome[]> {
    try {
      return await this.#connector.ship(changes)
    } catch (error) {
      this.#faults.warn({ changes: changes.length, err: error }, 'xdr: a connector failed, trying again')
      return []
    }
  }

  async close (): Promise<void> {
    await this.#connector.close()
    await Promise.all(this.#pending)
  }
}
