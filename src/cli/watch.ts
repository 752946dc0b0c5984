// What can be watched is printed once, or again and again until it is interrupted.

import { setTimeout as sleep } from 'node:timers/promises'
import { UsageError, type Io } from './io.js'

export interface WatchOptions {
  readonly watch?: string | true
  readonly json?: boolean
}

const CLEAR = '\u001b[H\u001b[J'
const WATCH_SECONDS = 1

export async function printOrWatch (io: Io, options: WatchOptions, render: () => Promise<string>): Promise<void> {
  if (options.watch === undefined) {
    io.out(await render())
    return
  }
  const seconds = options.watch === true ? WATCH_SECONDS : Number(options.watch)
  if (!(seconds >= 0.1 && seconds <= 3600)) throw new UsageError(`${JSON.stringify(options.watch)} is not a period; allowed: 0.1 to 3600 seconds`)
  const signal = io.interrupted()
  while (!signal.aborted) {
    let text: string
    try {
      text = await render()
    } catch (error) {
      // A node that restarts is what one watches for.
      if (!(error instanceof Error) || error instanceof UsageError) throw error
      text = options.json === true ? `${JSON.stringify({ error: error.message })}\n` : `${error.message}\n`
    }
    io.out(io.isTerminal && options.json !== true ? CLEAR + text : text)
    await sleep(seconds * 1000, undefined, { signal }).catch(() => {})
  }
}
