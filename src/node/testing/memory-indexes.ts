// Secondary indexes as the engine keeps them, without records.
//
// It models: definitions by namespace and name, the refusals of the engine (another definition under a name, too many, one that it does not take), and
// that all of it is gone with the process. It does not model: building (what is made is `building` until the test says otherwise), entries, queries.

import { EngineError, type Engine } from '../../engine/engine.js'
import type { IndexDefinition, IndexStatus, IndexStatuses } from '../../engine/native.js'

export const STATUS: Omit<IndexStatus, 'name' | 'set' | 'state'> = {
  entries: 0, 'used-bytes': 0, 'entries-per-bval': 0, 'entries-per-rec': 0, 'load-pct': 0, 'load-time-ms': 0, 'gc-records': 0
}

export class MemoryIndexes implements Pick<Engine, 'createIndex' | 'dropIndex' | 'indexes'> {
  readonly made = new Map<string, Map<string, IndexDefinition>>()
  /** Differs from that of a new index. */
  readonly status = new Map<string, Partial<IndexStatus>>()
  readonly #max: number
  readonly #refuses: (definition: IndexDefinition) => boolean

  constructor ({ max = 256, refuses = () => false }: { max?: number, refuses?: (definition: IndexDefinition) => boolean } = {}) {
    this.#max = max
    this.#refuses = refuses
  }

  createIndex (namespace: string, definition: IndexDefinition): void {
    const indexes = this.made.get(namespace) ?? new Map<string, IndexDefinition>()
    this.made.set(namespace, indexes)
    if (this.#refuses(definition)) throw new EngineError('PERIGEE_ARGUMENT', 'the expression has no type')
    const there = indexes.get(definition.name)
    if (there !== undefined) {
      if (JSON.stringify(there) !== JSON.stringify(definition)) throw new EngineError('PERIGEE_EXISTS', 'there is another index of this name')
      return
    }
    if (indexes.size === this.#max) throw new EngineError('PERIGEE_LIMIT', `a namespace has at most ${this.#max} indexes`)
    indexes.set(definition.name, definition)
  }

  dropIndex (namespace: string, name: string): boolean {
    return this.made.get(namespace)?.delete(name) ?? false
  }

  indexes (): IndexStatuses {
    return Object.fromEntries([...this.made].map(([namespace, indexes]) => [namespace, [...indexes.values()].map(({ name, set }): IndexStatus => {
      return { ...STATUS, name, set: set ?? null, state: 'building', ...this.status.get(name) }
    })]))
  }
}
