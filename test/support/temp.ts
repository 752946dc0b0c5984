// Temporary directories that are gone when the process ends, however it ends, unless PERIGEE_KEEP_TEMP is set.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const created = new Set<string>()

process.on('exit', () => {
  for (const directory of created) removeTempDirectory(directory)
})

/** A new empty directory; `label` shows in its name. */
export function tempDirectory (label: string): string {
  const directory = mkdtempSync(join(tmpdir(), `perigee-${label}-`))
  created.add(directory)
  return directory
}

/** Removes a directory of `tempDirectory` early. Harmless when it is gone. */
export function removeTempDirectory (directory: string): void {
  created.delete(directory)
  if (process.env.PERIGEE_KEEP_TEMP !== undefined) return
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
}
