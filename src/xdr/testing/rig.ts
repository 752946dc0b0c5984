import assert from 'node:assert/strict'
import type { Log } from '../../../connectors/connector.js'
import { eventually } from '../../../test/support/eventually.js'
import { EPOCH_UNIX_SECONDS } from '../../engine/constants.js'
import type { DestinationStore } from './destination-server.js'
import type { MemoryNative } from './memory-native.js'

export interface LogLine {
  readonly level: string
  readonly fields: Record<string, unknown>
  readonly message: string
}

/** A log that is kept, for tests that expect a line. */
export class KeptLog {
  readonly lines: LogLine[] = []
  readonly log: Log

  constructor () {
    const at = (level: string) => (fields: unknown, message?: string) => {
      this.lines.push({ level, fields: fields as Record<string, unknown>, message: message ?? String(fields) })
    }
    this.log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') } as unknown as Log
  }

  has (text: string): boolean {
    return this.lines.some(({ message }) => message.includes(text))
  }
}

export async function until (what: string, holds: () => boolean, timeoutMs = 20_000): Promise<void> {
  await eventually(what, holds, (held) => held, { timeoutMs, intervalMs: 5 })
}

/** Every record of the source is over there in its newest version, under its remote namespace. */
export function assertSameRecords (native: MemoryNative, store: DestinationStore, skip: (userKey: string) => boolean = () => false): void {
  for (const record of native.records.values()) {
    if (skip(record.userKey)) continue
    const there = store.records.get(`${record.namespace}/${record.digest.toString('hex')}`)
    assert.ok(there !== undefined, `${record.userKey} is missing`)
    assert.equal(there.value, record.value, record.userKey)
    assert.equal(there.lut, Number(record.lut) + EPOCH_UNIX_SECONDS * 1000, record.userKey)
  }
}

/** No last-ship time covers a change that the other side does not have: a restart from `times` would never ship it. */
export function assertShipTimesHonest (native: MemoryNative, store: DestinationStore, namespace: string, times: Buffer): void {
  for (const record of native.records.values()) {
    if (record.namespace !== namespace || record.lut > times.readBigUInt64LE(record.partition * 8)) continue
    const there = store.records.get(`${namespace}/${record.digest.toString('hex')}`)
    assert.ok(there !== undefined && there.lut >= Number(record.lut) + EPOCH_UNIX_SECONDS * 1000, `${record.userKey} is covered and was not shipped`)
  }
}
