// Reads a configuration file and reports everything that is wrong with it at once, each with the line it is on.

import { readFile } from 'node:fs/promises'
import { LineCounter, isMap, isNode, isScalar, parseDocument, type Document, type ParsedNode } from 'yaml'
import type { z } from 'zod'
import { crossCheck } from './cross-check.js'
import { keysAt, variantsAt } from './keys.js'
import { nodeConfigSchema, type LeafIssue, type NodeConfig } from './schema.js'

export type Path = ReadonlyArray<string | number>

export interface ConfigIssue {
  /** 1-based; undefined when the configuration was not read from text. */
  line: number | undefined
  /** As in `namespaces[0].storage-engine.filesize`; empty for the document. */
  path: string
  /** The value seen and what is allowed, without file, line and path. */
  message: string
}

/** A configuration that cannot be used, with every reason. Its message is one line an issue. */
export class ConfigError extends Error {
  readonly code = 'CONFIG'
  readonly source: string
  readonly issues: readonly ConfigIssue[]

  constructor (source: string, issues: readonly ConfigIssue[]) {
    super(issues.map((issue) => formatIssue(source, issue)).join('\n'))
    this.name = 'ConfigError'
    this.source = source
    this.issues = issues
  }
}

function formatIssue (source: string, { line, path, message }: ConfigIssue): string {
  return `${source}${line === undefined ? '' : `:${line}`}: ${path === '' ? '' : `${path}: `}${message}`
}

/** Reads and checks `file`. Rejects with {@link ConfigError}. */
export async function loadConfig (file: string): Promise<NodeConfig> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error)
    const reason = code === 'ENOENT' ? 'there is no such file' : code === 'EISDIR' ? 'this is a directory' : `cannot be read (${code})`
    throw new ConfigError(file, [{ line: undefined, path: '', message: reason }])
  }
  return parseConfigText(text, file)
}

/** Checks YAML text; `source` is the name that messages carry. Throws {@link ConfigError}. */
export function parseConfigText (text: string, source = 'configuration'): NodeConfig {
  const lines = new LineCounter()
  // Failsafe: every scalar stays the text that was written, so that `node-id: 0123` is not a number and `no` not a boolean.
  const document = parseDocument(text, { lineCounter: lines, schema: 'failsafe', prettyErrors: false, uniqueKeys: true })
  if (document.errors.length > 0) {
    throw new ConfigError(source, document.errors.map((error) => ({
      line: lines.linePos(error.pos[0]).line, path: '', message: error.message
    })))
  }
  return check(document.toJS() ?? {}, source, (path, key) => lineOf(document, lines, path, key))
}

/** Checks a configuration made by a program. Throws {@link ConfigError}. */
export function parseConfig (value: unknown, source = 'configuration'): NodeConfig {
  return check(value, source, () => undefined)
}

type Locate = (path: Path, key?: string) => number | undefined

function check (value: unknown, source: string, locate: Locate): NodeConfig {
  const parsed = nodeConfigSchema.safeParse(value)
  const issues = parsed.success ? [] : parsed.error.issues.flatMap((issue) => describe(issue, value, locate))
  const refused = new Set(issues.map((issue) => issue.path))
  for (const { path, message } of crossCheck(value)) {
    // One reason a value is enough.
    if (!refused.has(formatPath(path))) issues.push({ line: locate(path), path: formatPath(path), message })
  }
  if (issues.length > 0 || !parsed.success) {
    throw new ConfigError(source, issues.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0)))
  }
  return parsed.data
}

// One issue for each unknown key; otherwise one.
function describe (issue: z.core.$ZodIssue, root: unknown, locate: Locate): ConfigIssue[] {
  const path = issue.path as Path
  const value = valueAt(root, path)
  const one = (message: string): ConfigIssue[] => [{ line: locate(path), path: formatPath(path), message }]

  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({
        line: locate(path, key), path: formatPath([...path, key]), message: unknownKey(key, path, value)
      }))
    case 'invalid_union': {
      const types = variantsAt(path.slice(0, -1)).join(', ')
      return one(value === undefined ? `is missing; allowed: ${types}` : `${show(value)} is not a type; allowed: ${types}`)
    }
    case 'invalid_type': {
      if (value === undefined) return one('is missing')
      return one(`${show(value)} is not ${issue.expected === 'array' ? 'a list' : 'a section'}; allowed: ${
        issue.expected === 'array' ? 'a list of entries' : `the keys ${keysAt(path).join(', ')}`}`)
    }
    case 'too_small':
      return one(`has ${(value as unknown[]).length} entries; allowed: at least ${issue.minimum}`)
    case 'too_big':
      return one(`has ${(value as unknown[]).length} entries; allowed: at most ${issue.maximum}`)
    case 'custom': {
      const { says, allowed } = issue.params as unknown as LeafIssue
      return one(value === undefined ? `is missing; allowed: ${allowed}` : `${show(value)} ${says}; allowed: ${allowed}`)
    }
    default:
      return one(issue.message)
  }
}

function unknownKey (key: string, path: Path, section: unknown): string {
  const type = (section as { type?: unknown } | undefined)?.type
  const allowed = keysAt(path, typeof type === 'string' ? type : undefined)
  const other = variantsAt(path).find((variant) => variant !== type && keysAt(path, variant).includes(key))
  if (other !== undefined) return `is a key of type ${other}, and this is of type ${String(type)}`
  const near = closest(key, allowed)
  return `unknown key; ${near === undefined ? '' : `did you mean ${near}? `}allowed: ${allowed.join(', ')}`
}

/** The one allowed name within two edits, if there is any. */
function closest (key: string, allowed: readonly string[]): string | undefined {
  return allowed.find((candidate) => editDistance(key.replaceAll('_', '-'), candidate) <= 2)
}

function editDistance (a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    previous = row
  }
  return previous[b.length]!
}

export function formatPath (path: Path): string {
  return path.map((step, i) => typeof step === 'number' ? `[${step}]` : i === 0 ? step : `.${step}`).join('')
}

function valueAt (root: unknown, path: Path): unknown {
  let value = root
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return undefined
    value = (value as Record<string | number, unknown>)[step]
  }
  return value
}

const SHOWN_CHARACTERS_MAX = 80

function show (value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > SHOWN_CHARACTERS_MAX ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}...` : text
}

// The line of a value, of a key when one is named, or of the nearest section around what is missing.
function lineOf (document: Document.Parsed, lines: LineCounter, path: Path, key?: string): number | undefined {
  const at = (node: unknown) => isNode(node) && node.range ? lines.linePos((node as ParsedNode).range[0]).line : undefined
  for (let depth = path.length; depth >= 0; depth--) {
    const around = depth === 0 ? document.contents : document.getIn(path.slice(0, depth), true)
    const named = depth === path.length ? key : path[depth]
    if (isMap(around) && typeof named === 'string') {
      const pair = around.items.find((item) => isScalar(item.key) && item.key.value === named)
      if (pair !== undefined) return at(pair.key)
    }
    // A section is found by its key, whose line is the one that a reader looks for.
    const last = path[depth - 1]
    if (depth > 0 && typeof last === 'string') {
      const parent = depth === 1 ? document.contents : document.getIn(path.slice(0, depth - 1), true)
      const pair = isMap(parent) ? parent.items.find((item) => isScalar(item.key) && item.key.value === last) : undefined
      if (pair !== undefined) return at(pair.key)
    } else if (around !== undefined) {
      const line = at(around)
      if (line !== undefined) return line
    }
  }
  return undefined
}
