// `npm run soak`: a node under load for as long as it is told to, with a verdict. Ends with 0 when everything held and nothing is known not to be flat, 1
// when not, 2 when the command line is wrong, 3 when everything held, but other processes had so much of the machine that not all could be judged. The first
// SIGINT ends it with the verdict so far.
import { writeFileSync } from 'node:fs'
import { UsageError, parseOptions } from './options.js'
import { FOREIGN_CPU_PCT_MAX, type Sample } from './samples.js'
import { soak, type SoakReport } from './soak.js'

const MiB = 2 ** 20

function line (sample: Sample): string {
  return [
    `${sample.seconds.toFixed(0)} s`.padStart(8), `${sample.operationsPerSecond.toFixed(0)}/s`.padStart(9),
    `${(sample.residentBytes / MiB).toFixed(0)} MiB`.padStart(9),
    `${(sample.heapBytes / MiB).toFixed(0)} MiB heap`.padStart(13), `${sample.foreignCpuPct.toFixed(0)} % others`.padStart(13),
    `p99 ${sample.readP99Ms.toFixed(1)} ${sample.writeP99Ms.toFixed(1)} ms`.padStart(19),
    `${sample.writeAmplification.toFixed(2)} written/B`.padStart(16), `${sample.availPct} % avail`.padStart(11),
    `${sample.freeBlocks} free`.padStart(10), `${sample.overloads} overloads`.padStart(13), `${sample.errors} errors`.padStart(9)
  ].join('')
}

function print (report: SoakReport, say: (line: string) => void): void {
  const { seed, interrupted, steady, crashes, powerCuts, passed } = report
  if (steady !== undefined) {
    say(`steady load: ${steady.operations} requests on ${steady.keys} records in ${steady.seconds.toFixed(0)} s, ${steady.overloads} put off, ${steady.errors} wrong`)
    const { trends, judged, disturbed } = steady.flatness
    for (const { measure, first, last, says, flat } of trends) {
      const word = flat === undefined ? 'UNKNOWN ' : flat ? 'flat    ' : 'NOT FLAT'
      const [name, unit] = measure === 'residentBytes' ? ['resident MiB', MiB] : [measure, 1]
      say(`  ${word} ${name} ${(first / unit).toFixed(2)} -> ${(last / unit).toFixed(2)} (${says})`)
    }
    if (trends.length === 0) say('  too few samples to say whether it is flat')
    if (disturbed > 0) say(`  ${disturbed} of ${judged} samples do not count for latency and throughput: other processes took more than ${FOREIGN_CPU_PCT_MAX} % of the machine`)
  }
  if (crashes !== undefined) say(`crashes: ${crashes.rounds}, ${crashes.acknowledged} requests answered, ${crashes.errors} wrong`)
  if (powerCuts !== undefined) say(`power cuts with ${powerCuts.seeds} seeds in ${powerCuts.tests} tests: ${powerCuts.passed ? 'passed' : 'FAILED'}`)
  for (const finding of [...steady?.findings ?? [], ...crashes?.findings ?? []]) say(`  ${finding}`)
  say(`${passed === null ? 'UNDECIDED' : passed ? 'passed' : 'FAILED'}${interrupted ? ', interrupted' : ''} (--seed ${seed})`)
}

async function main (): Promise<void> {
  const options = parseOptions(process.argv.slice(2))
  if (options === null) return
  // With the report on stdout, everything else goes beside it.
  const say = options.report === '-' ? console.error : console.log
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      controller.abort()
      process.once(signal, () => process.exit(1))
    })
  }
  say(`seed ${options.seed}`)
  const report = await soak(options, controller.signal, { say, sample: sample => { say(line(sample)) } })
  print(report, say)
  const json = JSON.stringify(report, null, 2)
  if (options.report === '-') console.log(json)
  else if (options.report !== undefined) writeFileSync(options.report, `${json}\n`)
  process.exitCode = report.passed === null ? 3 : report.passed ? 0 : 1
}

try {
  await main()
} catch (error) {
  console.error(`soak: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
