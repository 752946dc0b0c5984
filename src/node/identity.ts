// Which node this is: configured, or made up once and kept in the work directory.

import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { replaceFile } from '../files/replace-file.js'

const NODE_ID = /^[0-9A-F]{1,16}$/

/** The node's id, upper-case hexadecimal. Rejects when the kept one cannot be read or is damaged: a node must not change its name by accident. */
export async function nodeIdentity (workDirectory: string, configured: string | undefined): Promise<string> {
  if (configured !== undefined) return configured.toUpperCase()
  const path = join(workDirectory, 'node-id')
  let kept: string
  try {
    kept = (await readFile(path, 'utf8')).trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return await makeIdentity(path)
  }
  if (!NODE_ID.test(kept)) throw new Error(`${path} holds no node id; set service.node-id, or remove the file to take a new one`)
  return kept
}

async function makeIdentity (path: string): Promise<string> {
  const id = `B${randomBytes(7).toString('hex').toUpperCase()}`
  await replaceFile(path, `${id}\n`)
  return id
}
