// Truncation commands (PROTOCOL section 11.2).

import { Limit, ResultCode } from '../engine/constants.js'
import { MetadataFullError } from '../node/system-metadata.js'
import { namespaceOf } from './limits.js'
import type { NodeView } from './node-view.js'
import type { InfoCommand } from './registry.js'
import { InfoError, bounded, type InfoCommandCall } from './request.js'

/** 2010-01-01 in milliseconds since 1970: where last-update times begin. */
const EPOCH_MS = Date.UTC(2010, 0, 1)
const NS_PER_MS = 1_000_000n

/** The time of a command, in milliseconds since 2010; undefined for now. */
function lutOf ({ parameters }: InfoCommandCall): number | undefined {
  const text = parameters.get('lut')
  if (text === undefined || text === '0') return undefined
  if (!/^\d{1,20}$/.test(text)) throw new InfoError(ResultCode.PARAMETER, `bad 'lut' '${text}': nanoseconds since 1970`)
  const ms = Number(BigInt(text) / NS_PER_MS)
  if (ms > Date.now()) throw new InfoError(ResultCode.PARAMETER, `'lut' ${text} is in the future`)
  if (ms <= EPOCH_MS) throw new InfoError(ResultCode.PARAMETER, `'lut' ${text} is before 2010`)
  return ms - EPOCH_MS
}

type Names = (call: InfoCommandCall) => string | undefined

const setOf: Names = ({ parameters }) => bounded('set', parameters.need('set'), Limit.SET_BYTES_MAX)

async function done (change: Promise<void>): Promise<string> {
  try {
    await change
    return 'ok'
  } catch (error) {
    if (error instanceof MetadataFullError) throw new InfoError(ResultCode.FORBIDDEN, error.message)
    throw error
  }
}

const truncate = (set: Names): InfoCommand => (node: NodeView, call) => {
  const { name } = namespaceOf(node, call)
  return done(node.truncations.truncate(name, set(call), lutOf(call)))
}

const undo = (set: Names): InfoCommand => (node: NodeView, call) => {
  const { name } = namespaceOf(node, call)
  return done(node.truncations.undo(name, set(call)))
}

const noSet: Names = () => undefined

export const truncateCommands: Record<string, InfoCommand> = {
  truncate: truncate(setOf),
  'truncate-undo': undo(setOf),
  'truncate-namespace': truncate(noSet),
  'truncate-namespace-undo': undo(noSet)
}
