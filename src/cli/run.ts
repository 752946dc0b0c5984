// Runs one command line and says how it ended: 0 done, 1 it could not be done, 2 the command line is wrong.

import { CommanderError } from 'commander'
import { UsageError, type Io } from './io.js'
import { buildProgram } from './program.js'

export const ExitCode = { DONE: 0, FAILED: 1, USAGE: 2 } as const

export async function run (args: readonly string[], io: Io): Promise<number> {
  let code: number = ExitCode.DONE
  const program = buildProgram(io, (ended) => { code = ended })
  try {
    await program.parseAsync(args, { from: 'user' })
    return code
  } catch (error) {
    // Help and version arrive here too, as if they were errors; commander has already printed what there is to say.
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.DONE : ExitCode.USAGE
    report(error, io)
    return error instanceof UsageError ? ExitCode.USAGE : ExitCode.FAILED
  }
}

function report (error: unknown, io: Io): void {
  const label = io.colours.err ? '\u001b[31mperigee:\u001b[0m' : 'perigee:'
  if ((io.env['PERIGEE_DEBUG'] ?? '') !== '' && error instanceof Error) io.err(`${label} ${error.stack}\n`)
  // Lines of a configuration error name their file themselves.
  else if ((error as { code?: unknown }).code === 'CONFIG') io.err(`${(error as Error).message}\n`)
  else io.err(`${label} ${error instanceof Error ? error.message : String(error)}\n`)
}
