// Entry of the command line.

import { processIo } from './cli/io.js'
import { run } from './cli/run.js'

const code = await run(process.argv.slice(2), processIo())
// A command that runs until it is stopped may have set its own.
process.exitCode ??= code
