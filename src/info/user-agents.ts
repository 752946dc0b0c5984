// What clients call themselves (`<format>,<language>-<version>,<application>`). Each client says so once a connection.

import { ResultCode } from '../engine/constants.js'
import type { InfoCommand } from './registry.js'
import { InfoError } from './request.js'

/** Different user agents that are kept; beyond it the one that was named longest ago is dropped. */
const AGENTS_MAX = 256
const AGENT_BYTES_MAX = 255

/** User agents, with how often each was named since the start or since it was dropped. */
export class UserAgents {
  readonly #named = new Map<string, number>()

  name (agent: string): void {
    const before = this.#named.get(agent) ?? 0
    // Entries stay in the order in which they were named last.
    this.#named.delete(agent)
    this.#named.set(agent, before + 1)
    if (this.#named.size > AGENTS_MAX) this.#named.delete(this.#named.keys().next().value!)
  }

  entries (): Iterable<readonly [agent: string, count: number]> {
    return this.#named
  }
}

/** The text, in its one form of base64, so that what means the same is counted as one. */
function agentOf (base64: string): string | undefined {
  const bytes = Buffer.from(base64, 'base64')
  const whole = base64.length % 4 === 0 && /^[A-Za-z0-9+/]+={0,2}$/.test(base64) && bytes.length <= AGENT_BYTES_MAX
  return whole ? bytes.toString('base64') : undefined
}

const set: InfoCommand = (node, call) => {
  const agent = agentOf(call.parameters.need('value'))
  if (agent === undefined) throw new InfoError(ResultCode.PARAMETER, `bad 'value': base64 of 1 to ${AGENT_BYTES_MAX} bytes`)
  node.userAgents.name(agent)
  return 'ok'
}

const list: InfoCommand = (node) => [...node.userAgents.entries()].map(([agent, count]) => `user-agent=${agent}:count=${count};`).join('')

export const userAgentCommands: Record<string, InfoCommand> = { 'user-agent-set': set, 'user-agents': list }
