import type { ChangeEntry } from './batch.js'

/** What became of an entry, with the reason for a retry, which is counted under its own name. */
export const Verdict = { SHIPPED: 0, ABANDONED: 1, RETRY_DEST: 2, RETRY_CONN_RESET: 3, RETRY_NO_NODE: 4 } as const
export type Verdict = (typeof Verdict)[keyof typeof Verdict]

/** Entries that travel and are settled together. Every entry has a verdict when the group is settled, which happens exactly once. */
export class ShipGroup {
  readonly entries: readonly ChangeEntry[]
  readonly verdicts: Uint8Array
  /** Of `performance.now()`: the wall clock may step. */
  readonly startedMs: number

  constructor (entries: readonly ChangeEntry[], startedMs: number) {
    this.entries = entries
    this.verdicts = new Uint8Array(entries.length)
    this.startedMs = startedMs
  }
}

export type Settle = (group: ShipGroup) => void

/** The way to one kind of destination: siblings are `shipper-cluster.ts` and `shipper-connector.ts`. */
export interface Shipper {
  /** Endpoints that take changes now. At 0 the datacenter hands nothing over. */
  readonly nodes: number
  /** Starts to look for the destination; resolves when it is found, however long that takes. Rejects when that can never be, or on close. */
  open (): Promise<void>
  /** Takes charge of entries, all of them or, if it throws, none. Their frames are views that end with this call. */
  ship (entries: readonly ChangeEntry[]): void
  /** Settles what is in flight as a retry and lets go. Idempotent. */
  close (): Promise<void>
}
