// Walks the schema: which keys there are, for messages and for the reference page.

import { z } from 'zod'
import { documentSchema, keyNotes, type KeyNote } from './schema.js'

export interface Key extends KeyNote {
  /** With `[]` for a list's entries, as in `namespaces[].storage-engine.filesize`. */
  path: string
  /** The variant of the section that has this key (`type: device`); undefined when all have it. */
  variant: string | undefined
}

/** Every key that may be written, in the order of the schema. */
export function allKeys (): Key[] {
  const keys = new Map<string, Key>()
  visit(documentSchema, '', undefined, keys)
  return [...keys.values()]
}

function visit (schema: z.core.$ZodType, path: string, variant: string | undefined, keys: Map<string, Key>): void {
  const note = keyNotes.get(schema as z.ZodType)
  if (note !== undefined) {
    const seen = keys.get(path)
    // A second variant with the same key: it belongs to all of them.
    keys.set(path, { ...note, path, variant: seen === undefined ? variant : undefined })
    return
  }
  const bare = unwrap(schema)
  if (bare instanceof z.ZodArray) {
    visit(bare.element, `${path}[]`, variant, keys)
  } else if (bare instanceof z.ZodObject) {
    for (const [key, child] of Object.entries(bare.shape)) {
      if (!(child instanceof z.ZodLiteral)) visit(child as z.ZodType, path === '' ? key : `${path}.${key}`, variant, keys)
    }
  } else if (bare instanceof z.ZodDiscriminatedUnion) {
    const types = bare.options.map((option) => typeOf(option))
    const type = `${path}.type`
    keys.set(type, { path: type, variant: undefined, doc: 'Which kind it is; the other keys depend on it.', allowed: types.join(', '), default: undefined, dynamic: false })
    for (const option of bare.options) visit(option, path, typeOf(option), keys)
  }
}

/** The keys of the section at `path`; of one variant when `type` names it, of all otherwise. */
export function keysAt (path: ReadonlyArray<string | number>, type?: string): string[] {
  const section = sectionAt(path)
  if (section instanceof z.ZodObject) return Object.keys(section.shape)
  if (section instanceof z.ZodDiscriminatedUnion) {
    const options = section.options.filter((option) => type === undefined || typeOf(option) === type)
    return [...new Set(options.flatMap((option) => Object.keys((option as z.ZodObject).shape)))]
  }
  return []
}

/** The types that the section at `path` may have; empty if it has no variants. */
export function variantsAt (path: ReadonlyArray<string | number>): string[] {
  const section = sectionAt(path)
  return section instanceof z.ZodDiscriminatedUnion ? section.options.map((option) => typeOf(option)) : []
}

function sectionAt (path: ReadonlyArray<string | number>): z.core.$ZodType | undefined {
  let candidates: z.core.$ZodType[] = [documentSchema]
  for (const step of path) {
    candidates = candidates.flatMap((schema) => childrenOf(unwrap(schema), step))
  }
  return candidates[0] === undefined ? undefined : unwrap(candidates[0])
}

function childrenOf (schema: z.core.$ZodType, step: string | number): z.core.$ZodType[] {
  if (schema instanceof z.ZodArray) return [schema.element]
  if (schema instanceof z.ZodObject) return step in schema.shape ? [schema.shape[step] as z.ZodType] : []
  if (schema instanceof z.ZodDiscriminatedUnion) return schema.options.flatMap((option) => childrenOf(option, step))
  return []
}

function typeOf (option: z.core.$ZodType): string {
  return String(((option as z.ZodObject).shape['type'] as z.ZodLiteral).value)
}

function unwrap (schema: z.core.$ZodType): z.core.$ZodType {
  return schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault
    ? unwrap(schema.unwrap() as z.ZodType)
    : schema
}
