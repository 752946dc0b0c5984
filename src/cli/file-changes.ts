// Waiting for files to change. Folders are watched rather than files: editors often write a new file and rename it over the old one.

import { watch } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** A change is told when nothing has happened for this long: a save is several events. */
const SETTLE_MS = 60
/** It is told even if there is no such pause for so many times this long. */
const SETTLE_ROUNDS_MAX = 20

export class FileChanges {
  readonly #watchers: Array<ReturnType<typeof watch>> = []
  readonly #signal: AbortSignal
  #changed = true
  #wake: () => void = () => {}

  /** Watches files whose names end in `suffix` from here on. Throws when a folder is not there. */
  constructor (folders: Iterable<string>, suffix: string, signal: AbortSignal) {
    this.#signal = signal
    for (const folder of new Set(folders)) {
      const watcher = watch(folder, (_, name) => { if (name === null || name.endsWith(suffix)) this.tell() })
      this.#watchers.push(watcher.on('error', () => { this.tell() }))
    }
    signal.addEventListener('abort', () => { this.#wake() }, { once: true })
  }

  /** As if something had changed. */
  tell (): void {
    this.#changed = true
    this.#wake()
  }

  /** Resolves when something changed since the last time, the first time at once; false when the signal says to end. */
  async next (): Promise<boolean> {
    while (!this.#changed && !this.#signal.aborted) await new Promise<void>((resolve) => { this.#wake = resolve })
    for (let round = 0; round < SETTLE_ROUNDS_MAX && this.#changed && !this.#signal.aborted; round++) {
      this.#changed = false
      await sleep(SETTLE_MS, undefined, { signal: this.#signal }).catch(() => {})
    }
    this.#changed = false
    return !this.#signal.aborted
  }

  close (): void {
    for (const watcher of this.#watchers) watcher.close()
  }
}
