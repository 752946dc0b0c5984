import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes a directory that is not there, and those above it. */
// Not `recursive: true`: Node.js 20 never ends where a file system says of a new entry that there is no such file though its parent is there, as /proc does.
export async function makeDirectory (path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const parent = dirname(path)
    // Of a file system that takes no writes, that it does not may come before that the directory is there.
    if (code !== 'ENOENT') {
      if (!await isDirectory(path)) throw error
    } else {
      if (parent === path || await isDirectory(parent)) throw error
      await makeDirectory(parent)
      await makeDirectory(path)
    }
  }
}

async function isDirectory (path: string): Promise<boolean> {
  return await stat(path).then((there) => there.isDirectory(), () => false)
}
