// The bins of the record that a function is called with. Only those that the function touches get an object; the others stay the bytes
// of the task, so that a call costs what it touches and not what the record holds.

import type { TValue } from './fengari.js'
import type { Task } from './lane.js'
import { decodeParticle } from './particle.js'
import { shortText } from './short-text.js'

/** Touched bins that are looked through one by one; with more of them, all get an object and are found by name. */
const LOOKED_THROUGH_MAX = 12

export interface Bin {
  /** One character a byte. */
  readonly name: string
  /** The task brought it. */
  readonly isOriginal: boolean
  /** It is there, as far as create, update and remove have made things real. */
  isStored: boolean
  /** One of them has touched it. */
  isChanged: boolean
  /** Particle type, and where its bytes are; -1 for a value that is encoded at the end. */
  type: number
  bytes: Uint8Array
  view: DataView
  at: number
  length: number
  /** Once decoded. */
  value: TValue | null
  /** What was assigned since, nil to delete; null for nothing. */
  assigned: TValue | null
}

export class RecordBins {
  readonly #task: Task
  #touched: Bin[] = []
  /** All bins, once they have objects. */
  #byName: Map<string, Bin> | null = null
  /** How many are stored. */
  size: number
  /** Bins with an assignment that is not real yet. */
  assigned: Bin[] = []
  /** Bins that create, update or remove touched. */
  readonly changed: Bin[] = []

  constructor (task: Task) {
    this.#task = task
    this.size = task.exists ? task.binCount : 0
  }

  get originals (): number {
    return this.#task.binCount
  }

  /** The bin of that name, when it is stored, was, or has been assigned. */
  find (name: string): Bin | undefined {
    if (this.#byName !== null) return this.#byName.get(name)
    for (const bin of this.#touched) if (bin.name === name) return bin
    const at = this.#task.findBin(name)
    if (at < 0) return undefined
    const task = this.#task
    return this.#touch(this.#original(name, task.binType(at), task.binValueAt(at), task.binValueLength(at)))
  }

  /** As `find`; a bin that there is not is made, not yet stored. */
  obtain (name: string): Bin {
    return this.find(name) ?? this.#touch({
      name, isOriginal: false, isStored: false, isChanged: false, type: -1, bytes: this.#task.bytes, view: this.#task.view, at: 0, length: 0, value: null, assigned: null
    })
  }

  /** All that are stored, those that the task brought first. */
  stored (): Bin[] {
    return [...this.#all().values()].filter(bin => bin.isStored)
  }

  valueOf (bin: Bin): TValue {
    bin.value ??= decodeParticle(bin.type, bin.bytes, bin.view, bin.at, bin.length)
    return bin.value
  }

  change (bin: Bin, isStored: boolean): void {
    if (bin.isStored !== isStored) this.size += isStored ? 1 : -1
    bin.isStored = isStored
    if (!bin.isChanged) this.changed.push(bin)
    bin.isChanged = true
  }

  #touch (bin: Bin): Bin {
    if (this.#byName !== null) this.#byName.set(bin.name, bin)
    else if (this.#touched.push(bin) > LOOKED_THROUGH_MAX) this.#all()
    return bin
  }

  #original (name: string, type: number, at: number, length: number): Bin {
    const { bytes, view } = this.#task
    return { name, isOriginal: true, isStored: true, isChanged: false, type, bytes, view, at, length, value: null, assigned: null }
  }

  #all (): Map<string, Bin> {
    if (this.#byName === null) {
      const touched = new Map(this.#touched.map(bin => [bin.name, bin]))
      const all = new Map<string, Bin>()
      const task = this.#task
      task.eachBin((nameAt, nameLength, type, at, length) => {
        const name = shortText(task.bytes, nameAt, nameLength)
        all.set(name, touched.get(name) ?? this.#original(name, type, at, length))
      })
      for (const bin of this.#touched) if (!bin.isOriginal) all.set(bin.name, bin)
      this.#byName = all
      this.#touched = []
    }
    return this.#byName
  }
}
