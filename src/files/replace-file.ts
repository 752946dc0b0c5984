import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { makeDirectory } from './make-directory.js'

/** Stands behind the name of a file that is being written. A crash may leave one behind; it is nothing. */
export const TEMPORARY_SUFFIX = '.tmp'

/** Replaces a file as a whole, durably: whenever power fails, the file is what it was before or what it is to be. Makes its directory when it is missing. */
export async function replaceFile (path: string, content: string | Uint8Array): Promise<void> {
  await makeDirectory(dirname(path))
  const temporary = path + TEMPORARY_SUFFIX
  try {
    const file = await open(temporary, 'w')
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    // A full disk is not kept full by half a file.
    await rm(temporary, { force: true }).catch(() => {})
    throw error
  }
  await syncDirectory(dirname(path))
}

/** Makes what was renamed or removed in a directory durable. */
export async function syncDirectory (path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
