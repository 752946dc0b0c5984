// Loads the native add-on. It is built by `npm ci` and loaded by path: nothing is downloaded, and worker threads load the same file.

import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { NativeAddon } from './native.js'

/** The package's root, from `dist/src/engine/`. */
export const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..')

/** The add-on's path. */
export const addonPath = join(packageRoot, 'native', 'target', 'release', 'libperigee_binding.so')

let loaded: NativeAddon | undefined

/** The add-on, loaded on first use. Throws with what to do when it is not built. */
export function addon (): NativeAddon {
  if (loaded === undefined) {
    if (!existsSync(addonPath)) throw new Error(`the native engine is not built (${addonPath} is missing): run "npm run build"`)
    const module = { exports: {} as NativeAddon }
    process.dlopen(module, addonPath, constants.dlopen.RTLD_NOW)
    loaded = module.exports
  }
  return loaded
}
