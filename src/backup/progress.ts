// How far something that takes long is, on stderr: a line that is redrawn on a terminal, a line now and then elsewhere.

const TERMINAL_EVERY_MS = 200
const LINE_EVERY_MS = 5000

export interface ProgressOutput {
  readonly isTerminal: boolean
  write (text: string): void
}

export class ProgressLine {
  readonly #output: ProgressOutput
  #shownMs: number
  #shown = false

  constructor (output: ProgressOutput, nowMs = performance.now()) {
    this.#output = output
    this.#shownMs = nowMs
  }

  /** Shows the text, unless the last one was shown a moment ago. */
  update (text: () => string, nowMs = performance.now()): void {
    if (nowMs - this.#shownMs < (this.#output.isTerminal ? TERMINAL_EVERY_MS : LINE_EVERY_MS)) return
    this.#shownMs = nowMs
    this.#shown = true
    this.#output.write(this.#output.isTerminal ? `\r\u001b[K${text()}` : `${text()}\n`)
  }

  /** A line of its own in the middle of it. */
  line (text: string): void {
    this.#output.write(`${this.#clear()}${text}\n`)
  }

  end (): void {
    this.#output.write(this.#clear())
  }

  #clear (): string {
    return this.#output.isTerminal && this.#shown ? '\r\u001b[K' : ''
  }
}

/** How far a backup or restore is. */
export class Progress {
  readonly #line: ProgressLine
  /** Records, or bytes, of which there are about so many; 0 when nobody knows. */
  readonly #total: number
  readonly #of: 'records' | 'bytes'
  readonly #startedMs: number

  constructor (output: ProgressOutput, total: number, of: 'records' | 'bytes', nowMs = performance.now()) {
    this.#line = new ProgressLine(output, nowMs)
    this.#total = total
    this.#of = of
    this.#startedMs = nowMs
  }

  update (records: number, bytes: number, nowMs = performance.now()): void {
    this.#line.update(() => this.#text(records, bytes, (nowMs - this.#startedMs) / 1000), nowMs)
  }

  line (text: string): void {
    this.#line.line(text)
  }

  end (): void {
    this.#line.end()
  }

  #text (records: number, bytes: number, seconds: number): string {
    const done = this.#of === 'records' ? records : bytes
    const parts = [`${records.toLocaleString('en')} records`, sizeText(bytes), `${Math.round(records / Math.max(seconds, 0.001)).toLocaleString('en')} records/s`]
    if (this.#total > 0) {
      const share = Math.min(1, done / this.#total)
      parts.unshift(`${String(Math.floor(100 * share)).padStart(3)}%`)
      if (done > 0) parts.push(`${timeText(seconds * (1 - share) / share)} left`)
    }
    return parts.join('  ')
  }
}

export function sizeText (bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024
    unit++
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`
}

export function timeText (seconds: number): string {
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`
}
