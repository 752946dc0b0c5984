// Long queries: which run, how far they are, and ending them.

import { ResultCode } from '../engine/constants.js'
import type { QueryListing } from '../engine/native.js'
import type { InfoCommand } from './registry.js'
import { InfoError, listedName, pairs, type InfoCommandCall } from './request.js'

const TASK_MAX = 2n ** 64n - 1n

/** The task that a call names; `trid` is the older name of the parameter. */
function taskOf (call: InfoCommandCall): string | undefined {
  const text = call.parameters.get('id', 'trid')
  if (text === undefined) return undefined
  if (!/^(?:\d+|0x[0-9a-f]+)$/i.test(text) || BigInt(text) > TASK_MAX) throw new InfoError(ResultCode.PARAMETER, `bad 'id' value`)
  return BigInt(text).toString()
}

function listed (query: QueryListing): string {
  const done = query.partitions === 0 ? 100 : 100 * query['partitions-done'] / query.partitions
  const status = query.done === null ? 'active(ok)' : `done(${query.done})`
  return pairs([
    ['trid', query.task], ['ns', query.namespace], ...query.set === '' ? [] : [['set', listedName(query.set)]] as const, ...query.index === '' ? [] : [['sindex-name', listedName(query.index)]] as const,
    ['n-pids-requested', query.partitions], ['rps', query['records-per-second']], ['active-threads', query.done === null ? 1 : 0], ['status', status],
    ['job-progress', done.toFixed(2)], ['run-time', query['run-time-ms']], ['time-since-done', query['since-done-ms']], ['recs-throttled', query.throttled],
    ['recs-filtered-meta', 0], ['recs-filtered-bins', query.filtered], ['recs-succeeded', query.records], ['recs-failed', query.failed],
    // The separator of pairs is a part of addresses.
    ['from', query.peer.replaceAll(':', '+')], ['job-type', query['job-type']], ['net-io-bytes', query.bytes], ['socket-timeout', query['socket-timeout-ms']]
  ], ':')
}

const show: InfoCommand = (node, call) => {
  const task = taskOf(call)
  const queries = node.engine.queries(task)
  if (task !== undefined && queries.length === 0) throw new InfoError(ResultCode.NOT_FOUND, 'job not found')
  return queries.map(listed).join(';')
}

const abort: InfoCommand = (node, call) => {
  call.parameters.need('id', { aliases: ['trid'] })
  if (node.engine.native.abortQueries(taskOf(call)) === 0) throw new InfoError(ResultCode.NOT_FOUND, 'id not active')
  return 'ok'
}

export const queryCommands: Record<string, InfoCommand> = {
  'query-show': show,
  'query-abort': abort,
  'query-abort-all': (node) => `number-of-queries-killed:${node.engine.native.abortQueries()}`
}
