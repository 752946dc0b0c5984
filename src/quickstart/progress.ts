// Progress of a long step: a bar on a terminal, a line now and then elsewhere. Always on stderr.
import { Presets, SingleBar } from 'cli-progress'

const LINE_EVERY_MS = 2_000

export class Progress {
  #title: string
  #total: number
  #bar: SingleBar | null = null
  #startedMs = Date.now()
  #lastLineMs = Date.now()
  #value = 0

  constructor (title: string, total: number) {
    this.#title = title
    this.#total = total
    if (process.stderr.isTTY) {
      this.#bar = new SingleBar({
        format: `  ${title} {bar} {percentage}% | {value}/{total} | {rate}/s`,
        stream: process.stderr,
        hideCursor: true
      }, Presets.shades_classic)
      this.#bar.start(total, 0, { rate: '0' })
    }
  }

  update (value: number): void {
    this.#value = value
    if (this.#bar !== null) {
      this.#bar.update(value, { rate: this.#rate() })
      return
    }
    if (Date.now() - this.#lastLineMs < LINE_EVERY_MS) return
    this.#lastLineMs = Date.now()
    console.error(`  ${this.#title}: ${value} of ${this.#total} (${Math.floor(100 * value / this.#total)}%)`)
  }

  /** Ends the bar; elsewhere prints what it came to. */
  end (): void {
    if (this.#bar !== null) this.#bar.stop()
    else console.error(`  ${this.#title}: ${this.#value} in ${((Date.now() - this.#startedMs) / 1000).toFixed(1)} s (${this.#rate()}/s)`)
  }

  #rate (): string {
    const seconds = Math.max(Date.now() - this.#startedMs, 1) / 1000
    return Math.round(this.#value / seconds).toLocaleString('en')
  }
}
