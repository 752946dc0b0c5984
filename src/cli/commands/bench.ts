import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { CommandError, type Io } from '../io.js'
import { packageRoot } from '../package-root.js'

const PROGRAM = 'native/target/release/perigee-bench'
const SIGNAL_EXIT_BASE = 128
/** Its subcommands that speak to one node. */
const WITH_NODE: ReadonlySet<string | undefined> = new Set(['batch', 'ingest', 'insert', 'mix', 'query', 'read', 'udf', 'write'])

/** Runs the load generator with these arguments on our own streams. Resolves to its exit code. */
export async function bench (io: Io, args: readonly string[]): Promise<number> {
  const program = join(packageRoot(), PROGRAM)
  if (!existsSync(program)) throw new CommandError('the load generator is not built; npm run build does that')
  // A terminal's Ctrl-C reaches it too; it ends first and we pass its code on. Other signals are handed over.
  const interrupted = io.interrupted()
  // It ends with us, also where we are killed: nobody would know of a load that goes on.
  const child = spawn(program, [...args, ...fromEnvironment(args, io.env)], { stdio: 'inherit', env: { ...io.env, PERIGEE_PARENT: String(process.pid) } })
  interrupted.addEventListener('abort', () => child.kill('SIGTERM'), { once: true })
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new CommandError(`the load generator cannot be started: ${error.message}`)))
    child.once('exit', (code, signal) => resolve(code ?? SIGNAL_EXIT_BASE + constants.signals[signal!]))
  })
}

export function fromEnvironment (args: readonly string[], env: NodeJS.ProcessEnv): string[] {
  if (!WITH_NODE.has(args[0])) return []
  return (['host', 'port'] as const).flatMap((name) => {
    const value = env[`PERIGEE_${name.toUpperCase()}`]
    const given = args.some((arg) => arg === `--${name}` || arg.startsWith(`--${name}=`))
    return value === undefined || value === '' || given ? [] : [`--${name}`, value]
  })
}
