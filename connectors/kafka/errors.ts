// What to do about an error of a send, one table. kafkajs wraps the answer of a broker in up to two errors of its own ("retries
// exceeded"), so the cause is looked for down the chain.

/**
 * `retry`: the same batch again, same producer id. `renew`: the same batch with a new producer id, since this one's sequence is broken.
 * `split`: one of the records is at fault; halves find it. `abandon`: nothing of this batch can ever be accepted.
 */
export type Remedy = 'retry' | 'renew' | 'split' | 'abandon'

const REMEDIES: Readonly<Record<string, Remedy>> = {
  MESSAGE_TOO_LARGE: 'split',
  RECORD_LIST_TOO_LARGE: 'split',
  INVALID_RECORD: 'split',
  INVALID_TIMESTAMP: 'split',
  INVALID_TOPIC_EXCEPTION: 'abandon',
  TOPIC_AUTHORIZATION_FAILED: 'abandon',
  CLUSTER_AUTHORIZATION_FAILED: 'abandon',
  POLICY_VIOLATION: 'abandon',
  OUT_OF_ORDER_SEQUENCE_NUMBER: 'renew',
  DUPLICATE_SEQUENCE_NUMBER: 'renew',
  INVALID_PRODUCER_EPOCH: 'renew',
  INVALID_PRODUCER_ID_MAPPING: 'renew',
  UNKNOWN_PRODUCER_ID: 'renew'
  // A topic that does not exist (UNKNOWN_TOPIC_OR_PARTITION) is retried: it may be about to be created, and giving up would lose changes.
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
