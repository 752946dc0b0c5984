// The configuration in force. It starts as the file's and may change by command, as far as its keys allow; what was changed lasts until the node stops.

import { allKeys } from '../../config/keys.js'
import { ConfigError, parseConfig } from '../../config/load.js'
import type { NamespaceConfig, NodeConfig } from '../../config/schema.js'
import type { NativeNode } from '../engine/native.js'

const STORAGE = 'storage-engine'

const keys = new Map(allKeys().map((key) => [key.path, key]))

/** A change that is not possible; the message says why. */
export class ConfigChangeError extends Error {
  constructor (message: string) {
    super(message)
    this.name = 'ConfigChangeError'
  }
}

export class RuntimeConfig {
  #config: NodeConfig
  readonly #native: NativeNode

  constructor (config: NodeConfig, native: NativeNode) {
    this.#config = config
    this.#native = native
  }

  get current (): NodeConfig {
    return this.#config
  }

  /**
   * Changes values of a namespace, or of one of its sets: all of them, or none when it throws `ConfigChangeError`. They are checked like a file, and in
   * force when this returns. Keys of storage-engine may be written with or without that in front. `prepare` is told of the namespace as it is to be; when it
   * throws, nothing has changed.
   */
  setNamespace (name: string, set: string | undefined, values: ReadonlyMap<string, string>, prepare: (namespace: NamespaceConfig) => void = () => {}): void {
    const namespaces = this.#config.namespaces.map((namespace) => namespace.name === name ? changed(namespace, set, values) : namespace)
    const config = checked({ ...this.#config, namespaces })
    const namespace = config.namespaces.find((candidate) => candidate.name === name)!
    prepare(namespace)
    this.#native.configure(name, JSON.stringify(namespace))
    this.#config = config
  }
}

function changed (namespace: NamespaceConfig, set: string | undefined, values: ReadonlyMap<string, string>): object {
  if (set !== undefined) {
    for (const key of values.keys()) needDynamic(`namespaces[].sets[].${key}`, key)
    const others = namespace.sets.filter((other) => other.name !== set)
    const before = namespace.sets.find((other) => other.name === set)
    return { ...namespace, sets: [...others, { ...before, name: set, ...Object.fromEntries(values) }] }
  }
  const own: Record<string, string> = {}
  const storage: Record<string, string> = {}
  for (const [written, value] of values) {
    const key = written.startsWith(`${STORAGE}.`) ? written.slice(STORAGE.length + 1) : written
    if (written !== key || keys.has(`namespaces[].${STORAGE}.${key}`)) {
      needDynamic(`namespaces[].${STORAGE}.${key}`, written)
      storage[key] = value
    } else {
      needDynamic(`namespaces[].${key}`, written)
      own[key] = value
    }
  }
  return { ...namespace, ...own, [STORAGE]: { ...namespace[STORAGE], ...storage } }
}

function needDynamic (path: string, written: string): void {
  const key = keys.get(path)
  if (key === undefined) throw new ConfigChangeError(`unknown key '${written}'`)
  if (!key.dynamic) throw new ConfigChangeError(`'${written}' cannot be changed while the node runs`)
}

function checked (config: object): NodeConfig {
  try {
    return parseConfig(config)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new ConfigChangeError(error.issues.map(({ path, message }) => `${path}: ${message}`).join(', '))
  }
}
