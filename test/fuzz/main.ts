// `npm run fuzz`: every target, or those that are named, for some time each. Ends with 0 when no promise was broken, 1 when one was, 2 when
// the command line is wrong or the program cannot be built.
import { availableParallelism } from 'node:os'
import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { CRASHES, HEADER, build, fileOfHex, fuzzAll, minimise, missing, reproduce, row, targets } from './fuzz.js'

const HELP = `npm run fuzz -- [--seconds N] [--jobs N] [--seed N] [--verbose] [target ...]   60 seconds each by default, two at a time
npm run fuzz -- --list
npm run fuzz -- --reproduce target file      runs one input again; --hex DIGITS in place of the file gives it in the command
npm run fuzz -- --minimise target file       looks for a smaller one that fails too; takes --hex as well`

function wholeNumber (option: string, text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${option} ${text}: a whole number from 1 on is expected`)
  return value
}

async function main (): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: '60' },
      jobs: { type: 'string', default: String(Math.min(2, availableParallelism())) },
      seed: { type: 'string' },
      verbose: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      reproduce: { type: 'boolean', default: false },
      minimise: { type: 'boolean', default: false },
      hex: { type: 'string' },
      help: { type: 'boolean', default: false }
    }
  })
  const known = targets()
  if (values.help || values.list) {
    console.log(values.help ? HELP : known.join('\n'))
    return 0
  }
  const [seconds, jobs] = [wholeNumber('seconds', values.seconds), wholeNumber('jobs', values.jobs)]
  const seed = values.seed === undefined ? undefined : wholeNumber('seed', values.seed)
  const one = values.reproduce || values.minimise
  if (values.hex !== undefined && !one) throw new Error('--hex goes with --reproduce or --minimise')
  const [target = '', path = ''] = positionals
  const unknown = (one ? [target] : positionals).filter(name => !known.includes(name))
  if (unknown.length > 0) throw new Error(`${unknown.join(', ')}: targets are ${known.join(', ')}`)
  const isComplete = values.hex === undefined ? positionals.length === 2 && existsSync(path) : positionals.length === 1
  if (one && !isComplete) throw new Error('a target and a file with an input, or --hex with its digits, are expected')
  const file = values.hex === undefined ? path : fileOfHex(values.hex)
  const lacking = missing()
  if (lacking !== null) throw new Error(`${lacking}; libFuzzer is compiled with it`)
  const program = build()
  if (one) return await (values.minimise ? minimise : reproduce)(program, target, file)

  console.log(HEADER)
  const wanted = positionals.length > 0 ? [...new Set(positionals)] : known
  const results = await fuzzAll(program, wanted, { seconds, jobs, echo: values.verbose, ...seed === undefined ? {} : { seed } }, result => { console.log(row(result)) })
  const failed = results.filter(({ finding }) => finding !== undefined).length
  console.log(failed === 0 ? `${results.length} targets kept their promises` : `${failed} of ${results.length} targets FAILED; inputs are in ${CRASHES}`)
  return failed === 0 ? 0 : 1
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => process.exit(130))
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(`fuzz: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 2
}
