// The tables of docs/reference/configuration.md, rendered from the schema; a test compares them with the page.

import { allKeys, type Key } from './keys.js'

export const TABLES_BEGIN = '<!-- keys: rendered from config/schema.ts -->'
export const TABLES_END = '<!-- /keys -->'

/** Markdown: one table a section, every key with meaning, default and what is allowed. */
export function renderKeyTables (): string {
  const sections = new Map<string, Key[]>()
  for (const key of allKeys()) {
    const section = sectionOf(key.path)
    sections.set(section, [...(sections.get(section) ?? []), key])
  }
  return [...sections].map(([section, keys]) => [
    `## \`${section}\``,
    '',
    '| Key | Default | Allowed | Meaning |',
    '|---|---|---|---|',
    ...keys.map(row)
  ].join('\n')).join('\n\n')
}

// Storage, and the parts of a datacenter, have tables of their own: theirs are the long ones.
function sectionOf (path: string): string {
  const match = /^(namespaces\[\]\.(?:storage-engine|sets\[\])|xdr\.dcs\[\]\.(?:kafka|file|namespaces\[\])|xdr\.dcs\[\]|network\.service|network\.tls\[\]|[^.[]+(?:\[\])?)\./.exec(path)
  return match?.[1] ?? path
}

function row (key: Key): string {
  const only = key.variant === undefined ? '' : ` (type ${key.variant})`
  return `| \`${key.path}\`${only} | ${key.default ?? '*required*'} | ${key.allowed} | ${key.doc}${key.dynamic ? ' *Dynamic.*' : ''} |`
}
