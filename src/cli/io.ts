// What a command sees of the process, so that tests can be one.

import { once } from 'node:events'
import { isColourful } from '../observe/log.js'

export interface Io {
  readonly env: NodeJS.ProcessEnv
  out (text: string): void
  err (text: string): void
  /** Bytes for stdout; resolves when there is room for more. */
  outBytes (bytes: Buffer): Promise<void>
  /** stdin. */
  input (): AsyncIterable<Buffer>
  /** Whether stdout, and whether stderr, shows colours. */
  readonly colours: { readonly out: boolean, readonly err: boolean }
  /** stdout is a terminal: it can be redrawn. */
  readonly isTerminal: boolean
  /** The same of stderr. */
  readonly isErrTerminal: boolean
  /** Aborted at the first SIGINT or SIGTERM from then on. A second one ends the process at once. */
  interrupted (): AbortSignal
}

export function processIo (): Io {
  let controller: AbortController | undefined
  let sendsBytes = false
  // `perigee ... | head` closes our stdout; that is no error, unless what goes there has to be whole.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE' && !sendsBytes) process.exit(0)
    process.stderr.write(`perigee: stdout cannot be written (${error.code})\n`)
    process.exit(1)
  })
  return {
    env: process.env,
    out: (text) => { process.stdout.write(text) },
    err: (text) => { process.stderr.write(text) },
    outBytes: async (bytes) => {
      sendsBytes = true
      if (!process.stdout.write(bytes)) await once(process.stdout, 'drain')
    },
    input: () => process.stdin as AsyncIterable<Buffer>,
    colours: { out: isColourful(process.stdout), err: isColourful(process.stderr) },
    isTerminal: process.stdout.isTTY === true,
    isErrTerminal: process.stderr.isTTY === true,
    interrupted: () => {
      if (controller === undefined) {
        const created = new AbortController()
        controller = created
        for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => created.abort())
      }
      return controller.signal
    }
  }
}

/** Something that the user asked for cannot be done; the message says why in a line. Ends with code 1. */
export class CommandError extends Error {
  readonly code = 'COMMAND'
}

/** The command line itself is wrong. Ends with code 2. */
export class UsageError extends Error {
  readonly code = 'USAGE'
}
