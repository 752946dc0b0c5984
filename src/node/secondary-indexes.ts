// Secondary indexes: decided here, their definitions kept in system metadata before they are in force, built and used by the engine. What the engine has of
// an index is gone with the process, so every start makes them anew. Those of whole sets that the configuration asks for (`enable-index`) are kept by it alone.

import { createHash } from 'node:crypto'
import type { NamespaceConfig } from '../../config/schema.js'
import type { Engine } from '../engine/engine.js'
import type { IndexDefinition, IndexStatus } from '../engine/native.js'
import type { SystemMetadata } from './system-metadata.js'

const MODULE = 'sindex'

/** An index as it is kept. */
export interface KnownIndex {
  readonly namespace: string
  readonly definition: IndexDefinition
}

/** An index with what the engine says of it, or why the engine does not take the definition that is kept. */
export interface IndexDescription extends KnownIndex {
  readonly status?: IndexStatus
  readonly refused?: string
}

export class SecondaryIndexes {
  readonly #metadata: SystemMetadata
  readonly #engine: Pick<Engine, 'createIndex' | 'dropIndex' | 'indexes'>
  /** Why a kept definition is not in force, by its key. */
  readonly #refused = new Map<string, string>()
  /** By namespace the sets of which the configuration wants an index, once the namespace is open. */
  readonly #sets = new Map<string, Set<string>>()
  #busy: Promise<unknown> = Promise.resolve()

  constructor (metadata: SystemMetadata, engine: Pick<Engine, 'createIndex' | 'dropIndex' | 'indexes'>) {
    this.#metadata = metadata
    this.#engine = engine
  }

  /**
   * Makes the kept indexes of these namespaces anew: once, when they are open. One that the engine refuses does not keep the node from starting; it is told to
   * `onRefused` and stays kept. Those of other namespaces wait until these are configured again.
   */
  restore (namespaces: ReadonlySet<string>, onRefused: (index: KnownIndex, error: Error) => void): void {
    for (const index of this.list()) {
      if (!namespaces.has(index.namespace)) continue
      try {
        this.#engine.createIndex(index.namespace, index.definition)
      } catch (error) {
        this.#refused.set(keyOf(index.namespace, index.definition.name), (error as Error).message)
        onRefused(index, error as Error)
      }
    }
  }

  /**
   * Makes the indexes of whole sets that the configuration of a namespace asks for, and takes away those that it asked for before: first when the namespace
   * is open, and then at each change. Throws the engine's error for one that it refuses; the others are as asked for then.
   */
  indexSets ({ name: namespace, sets }: Pick<NamespaceConfig, 'name' | 'sets'>): void {
    const wanted = new Set(sets.filter((set) => set['enable-index']).map(({ name }) => name))
    const there = this.#sets.get(namespace) ?? new Set()
    this.#sets.set(namespace, there)
    for (const set of there) {
      if (!wanted.has(set) && there.delete(set)) this.#engine.dropIndex(namespace, wholeSetName(set))
    }
    const refused: unknown[] = []
    for (const set of wanted) {
      if (there.has(set)) continue
      try {
        this.#engine.createIndex(namespace, { name: wholeSetName(set), set, 'index-type': 'set', 'key-type': 'numeric' })
        there.add(set)
      } catch (error) {
        refused.push(error)
      }
    }
    if (refused.length > 0) throw refused[0]
  }

  /** Whether `indexSets` was told of the namespace: it is open. */
  hasSetsOf (namespace: string): boolean {
    return this.#sets.has(namespace)
  }

  /** The index of a whole set that the configuration asks for, if it is there. */
  describeSet (namespace: string, set: string): IndexStatus | undefined {
    if (this.#sets.get(namespace)?.has(set) !== true) return undefined
    return this.#engine.indexes()[namespace]?.find(({ name }) => name === wholeSetName(set))
  }

  /**
   * Makes an index; it is kept and being built when this resolves. The same definition under its name again has no effect. Rejects with the engine's error
   * (PERIGEE_ARGUMENT, PERIGEE_EXISTS, PERIGEE_LIMIT) or `MetadataFullError`, and then nothing has changed.
   */
  create (namespace: string, definition: IndexDefinition): Promise<void> {
    return this.#inTurn(async () => {
      const key = keyOf(namespace, definition.name)
      const before = this.#metadata.get(MODULE, key)
      if (before !== undefined && !this.#refused.has(key)) {
        // The engine alone can tell whether two definitions mean the same.
        this.#engine.createIndex(namespace, definition)
        return
      }
      const refused = this.#refused.get(key)
      await this.#metadata.set(MODULE, key, JSON.stringify(definition))
      try {
        this.#engine.createIndex(namespace, definition)
        this.#refused.delete(key)
      } catch (error) {
        // Where it cannot be taken back, it is kept as one that is refused.
        this.#refused.set(key, (error as Error).message)
        await this.#metadata.set(MODULE, key, before ?? null)
        if (refused === undefined) this.#refused.delete(key)
        else this.#refused.set(key, refused)
        throw error
      }
    })
  }

  /** Takes an index away, also one that the engine refused; its definition is gone for good when this resolves. False: there was none. */
  drop (namespace: string, name: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const key = keyOf(namespace, name)
      const wasKept = this.#metadata.get(MODULE, key) !== undefined
      await this.#metadata.set(MODULE, key, null)
      this.#refused.delete(key)
      return this.#engine.dropIndex(namespace, name) || wasKept
    })
  }

  /** The kept indexes, or those of a namespace, in the order in which they were made. */
  list (namespace?: string): KnownIndex[] {
    return [...this.#metadata.values(MODULE)].flatMap(([key, definition]) => {
      const [owner] = JSON.parse(key) as [string, string]
      return namespace === undefined || owner === namespace ? [{ namespace: owner, definition: JSON.parse(definition) as IndexDefinition }] : []
    })
  }

  /** The kept indexes of a namespace, with how each of them is at present. It has to be open. */
  describe (namespace: string): IndexDescription[] {
    const indexes = this.list(namespace)
    const statuses = indexes.length === 0 ? [] : this.#engine.indexes()[namespace]
    return indexes.map((index): IndexDescription => {
      const { name } = index.definition
      const refused = this.#refused.get(keyOf(namespace, name))
      if (refused !== undefined) return { ...index, refused }
      const status = statuses?.find((one) => one.name === name)
      return status === undefined ? index : { ...index, status }
    })
  }

  // The engine has to be told in the order in which definitions are kept.
  #inTurn<R> (change: () => Promise<R>): Promise<R> {
    const done = this.#busy.then(change)
    this.#busy = done.catch(() => {})
    return done
  }
}

/** No longer than a name may be, whatever the set is called. */
function wholeSetName (set: string): string {
  return `enable-index ${createHash('sha256').update(set).digest('hex').slice(0, 40)}`
}

/** Whether a name is that of an index which the configuration asks for: nobody else may make or drop it. */
export function isWholeSetName (name: string): boolean {
  return /^enable-index [0-9a-f]{40}$/.test(name)
}

function keyOf (namespace: string, name: string): string {
  return JSON.stringify([namespace, name])
}
