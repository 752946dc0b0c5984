// The official client's own test suite, which ships inside its package. It is copied into a work folder below dist/ and
// compiled there; nothing of it is part of this repository.
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { officialClientDirectory } from '../support/official-client.js'
import { packageRoot } from '../support/package-root.js'

/** Raise it when this file changes what it makes. */
const LAYOUT_VERSION = 3

/** Laid out like the client's package, since the suite reads `../lib` and its own working directory. */
export const suiteDirectory = join(packageRoot, 'dist/conformance-suite')

/** Directly below test/, but without tests of its own. */
const HELPERS = new Set(['test_helper'])

/**
 * Makes the work folder unless it is there already for this version of the client, and returns the names of its test files
 * (without ending), sorted.
 */
export function prepareSuite (progress: (line: string) => void): string[] {
  const installed = join(officialClientDirectory, 'node_modules/aerospike')
  const manifest = readFileSync(join(installed, 'package.json'), 'utf8')
  const stamp = createHash('sha256').update(`${LAYOUT_VERSION} ${ts.version} ${officialClientDirectory}\n${manifest}`).digest('hex')
  const stampPath = join(suiteDirectory, 'stamp')
  if (!existsSync(stampPath) || readFileSync(stampPath, 'utf8') !== stamp) {
    progress('compiling the official client\'s test suite ...')
    rmSync(suiteDirectory, { recursive: true, force: true })
    mkdirSync(suiteDirectory, { recursive: true })
    writeFileSync(join(suiteDirectory, 'package.json'), manifest)
    symlinkSync(join(installed, 'lib'), join(suiteDirectory, 'lib'), 'dir')
    symlinkSync(join(officialClientDirectory, 'node_modules'), join(suiteDirectory, 'node_modules'), 'dir')
    cpSync(join(installed, 'test'), join(suiteDirectory, 'test'), { recursive: true })
    compile(join(suiteDirectory, 'test'))
    writeFileSync(stampPath, stamp)
  }
  return testFiles()
}

function testFiles (): string[] {
  return readdirSync(join(suiteDirectory, 'test'))
    .filter(name => name.endsWith('.js'))
    .map(name => name.slice(0, -'.js'.length))
    .filter(name => !HELPERS.has(name))
    .sort()
}

/** The compiler options of the suite's own tsconfig, as far as they decide what is emitted. */
function compilerOptions (test: string): ts.CompilerOptions {
  const { config, error } = ts.readConfigFile(join(test, 'tsconfig.json'), path => readFileSync(path, 'utf8'))
  if (error !== undefined) throw new Error(`the suite's tsconfig.json: ${ts.flattenDiagnosticMessageText(error.messageText, '\n')}`)
  const { options } = ts.convertCompilerOptionsFromJson((config as { compilerOptions: object }).compilerOptions, test)
  return { ...options, allowJs: true, sourceMap: false, noEmit: false }
}

/**
 * Each file is translated by itself, so a type error cannot stop it. Plain JavaScript with import statements goes the same
 * way: in this package it would only load on a Node.js that guesses the module system.
 */
function compile (test: string): void {
  const options = compilerOptions(test)
  for (const entry of readdirSync(test, { recursive: true, encoding: 'utf8' })) {
    if (entry.endsWith('.d.ts') || !/\.(ts|js)$/.test(entry)) continue
    const path = join(test, entry)
    const source = readFileSync(path, 'utf8')
    if (entry.endsWith('.js') && !/^import\s/m.test(source)) continue
    const { outputText } = ts.transpileModule(source, { compilerOptions: options, fileName: path })
    writeFileSync(path.replace(/\.ts$/, '.js'), outputText)
  }
}
