// Take-batches and confirmations, little endian.
//
//   batch = u32 count, entry*
//   entry =  0 u32 bytes of this entry   4 u32 bytes of the frame   8 u64 token   16 u16 partition   18 u8 kind   19 u8 namespace index
//           20 u32 void time (s since 2010, 0 never)               24 frame (a complete type 3 message)
//   confirmation = (u64 token, u8 outcome, 7 zero bytes)*
//
// Frames are views of the batch; whoever keeps one beyond the call that handed it out copies it.

const COUNT_BYTES = 4
const FRAME_SIZE_OFFSET = 4
const TOKEN_OFFSET = 8
const PARTITION_OFFSET = 16
const KIND_OFFSET = 18
const NAMESPACE_OFFSET = 19
const VOID_TIME_OFFSET = 20
const FRAME_OFFSET = 24
const CONFIRMATION_BYTES = 16
const OUTCOME_OFFSET = 8

export const ChangeKind = { WRITE: 1, DELETE: 2 } as const

/** What the native side does with an entry: forget it, hand it out again, forget it and count it. */
export const Outcome = { SUCCESS: 0, RETRY: 1, ABANDON: 2 } as const
export type Outcome = (typeof Outcome)[keyof typeof Outcome]

export interface ChangeEntry {
  /** The token in halves: it is only ever handed back, and two integers are cheaper than a bigint. */
  readonly tokenLow: number
  readonly tokenHigh: number
  readonly partition: number
  readonly kind: number
  /** Index into the datacenter's configured namespaces. */
  readonly namespace: number
  readonly voidTimeSeconds: number
  readonly frame: Buffer
  readonly frameBytes: number
}

/** The two sides of the binding disagree about the layout. */
export class BatchError extends Error {
  readonly code = 'XDR_BATCH_MALFORMED'
}

/** @throws BatchError */
export function decodeBatch (batch: Buffer): ChangeEntry[] {
  if (batch.length === 0) return []
  if (batch.length < COUNT_BYTES) throw new BatchError(`batch of ${batch.length} bytes`)
  const count = batch.readUInt32LE(0)
  if (count > batch.length / FRAME_OFFSET) throw new BatchError(`${count} entries in ${batch.length} bytes`)
  const entries = new Array<ChangeEntry>(count)
  let at = COUNT_BYTES
  for (let index = 0; index < count; index++) {
    if (at + FRAME_OFFSET > batch.length) throw new BatchError(`entry ${index} is cut at ${at} of ${batch.length}`)
    const end = at + batch.readUInt32LE(at)
    const frameBytes = batch.readUInt32LE(at + FRAME_SIZE_OFFSET)
    if (at + FRAME_OFFSET + frameBytes > end || end > batch.length) throw new BatchError(`entry ${index} at ${at} ends at ${end} of ${batch.length}`)
    entries[index] = {
      tokenLow: batch.readUInt32LE(at + TOKEN_OFFSET),
      tokenHigh: batch.readUInt32LE(at + TOKEN_OFFSET + 4),
      partition: batch.readUInt16LE(at + PARTITION_OFFSET),
      kind: batch[at + KIND_OFFSET]!,
      namespace: batch[at + NAMESPACE_OFFSET]!,
      voidTimeSeconds: batch.readUInt32LE(at + VOID_TIME_OFFSET),
      frame: batch.subarray(at + FRAME_OFFSET, at + FRAME_OFFSET + frameBytes),
      frameBytes
    }
    at = end
  }
  return entries
}

/** One confirmation buffer for all `entries`. */
export function encodeConfirmation (entries: readonly ChangeEntry[], outcomeOf: (index: number) => Outcome): Buffer {
  const confirmation = Buffer.alloc(entries.length * CONFIRMATION_BYTES)
  for (const [index, entry] of entries.entries()) {
    const at = index * CONFIRMATION_BYTES
    confirmation.writeUInt32LE(entry.tokenLow, at)
    confirmation.writeUInt32LE(entry.tokenHigh, at + 4)
    confirmation[at + OUTCOME_OFFSET] = outcomeOf(index)
  }
  return confirmation
}
