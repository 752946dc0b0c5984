// What to do about an error of a send, one table. kafkajs wraps the answer of a broker in up to two errors of its own ("retries
// exceeded"), so the cause is looked for down the chain.
//
// Only an error about a record may end in giving that record up. What is wrong with the site (an access list, a topic's name or policy, a clock)
// is put right by people: until then the stream stalls, `nodes` is 0 and the log says why. Giving up would lose every change of those minutes for good.

/**
 * `retry`: the same batch again, same producer id. `renew`: the same batch with a new producer id, since this one's sequence is broken.
 * `split`: one of the records is at fault; halves find it, and a record that is refused alone is given up.
 */
export type Remedy = 'retry' | 'renew' | 'split'

const REMEDIES: Readonly<Record<string, Remedy>> = {
  MESSAGE_TOO_LARGE: 'split',
  RECORD_LIST_TOO_LARGE: 'split',
  INVALID_RECORD: 'split',
  OUT_OF_ORDER_SEQUENCE_NUMBER: 'renew',
  DUPLICATE_SEQUENCE_NUMBER: 'renew',
  INVALID_PRODUCER_EPOCH: 'renew',
  INVALID_PRODUCER_ID_MAPPING: 'renew',
  UNKNOWN_PRODUCER_ID: 'renew'
  // Everything else is retried. INVALID_TIMESTAMP too: messages carry the time of sending, so it tells of a clock and not of a record.
}

export interface SendFault {
  readonly remedy: Remedy
  /** The broker's name for it, or the client's. */
  readonly reason: string
  readonly message: string
}

export function classify (error: unknown): SendFault {
  let fault: SendFault = { remedy: 'retry', reason: 'unknown', message: String(error) }
  const seen = new Set<unknown>()
  for (let at = error; at instanceof Error && !seen.has(at); at = at.cause) {
    seen.add(at)
    const type: unknown = 'type' in at ? at.type : undefined
    if (typeof type === 'string') return { remedy: REMEDIES[type] ?? 'retry', reason: type, message: at.message }
    fault = { remedy: 'retry', reason: at.name, message: at.message }
  }
  return fault
}
