import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { UDF_ERRORS, UdfError } from './errors.js'
import { MODULE_BYTES_MAX, ModuleStore } from './module-store.js'

const directories: string[] = []
after(async () => { for (const directory of directories) await rm(directory, { recursive: true, force: true }) })

async function work (): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'udf-store-'))
  directories.push(directory)
  return directory
}

async function opened (directory: string): Promise<ModuleStore> {
  const store = new ModuleStore(directory)
  await store.open()
  return store
}

async function put (store: ModuleStore, name: string, content: Uint8Array): Promise<void> {
  await store.write(await store.check(name, content))
}

const source = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

async function refusal (action: Promise<unknown>): Promise<UdfError> {
  try {
    await action
  } catch (error) {
    assert.ok(error instanceof UdfError, String(error))
    assert.ok(error.code in UDF_ERRORS)
    return error
  }
  throw new Error('was not refused')
}

describe('module store', () => {
  it('a_stored_module_is_there_after_reopening', async () => {
    const directory = await work()
    const store = await opened(directory)
    await put(store, 'b.lua', source('function f() return 1 end'))
    await put(store, 'a.lua', source('x = 1'))
    await put(store, 'a.lua', source('x = 2'))
    const again = await opened(directory)
    assert.deepEqual(again.list().map(({ name, type }) => [name, type]), [['a.lua', 'LUA'], ['b.lua', 'LUA']])
    assert.equal(Buffer.from(again.get('a.lua')!.content).toString(), 'x = 2')
    assert.equal(again.get('c.lua'), undefined)
    assert.deepEqual(again.list(), store.list())
  })

  it('the_hash_is_the_sha1_of_the_modules_metadata', async () => {
    const store = await opened(await work())
    await put(store, 'a.lua', source('x = 1'))
    const metadata = '{"content64":"eCA9IDE=","type":"LUA","name":"a.lua"}'
    assert.equal(store.list()[0]!.hash, createHash('sha1').update(metadata).digest('hex'))
  })

  it('removal_is_durable_and_repeatable', async () => {
    const directory = await work()
    const store = await opened(directory)
    await put(store, 'a.lua', source('x = 1'))
    await store.remove('a.lua')
    await store.remove('a.lua')
    assert.deepEqual((await opened(directory)).list(), [])
  })

  it('a_write_torn_at_any_byte_leaves_the_old_content', async () => {
    // The crash happens before the rename: what is on disk is the old file and a prefix of the temporary one.
    const directory = await work()
    const store = await opened(directory)
    await put(store, 'a.lua', source('return "old"'))
    const content = Buffer.from('return "new"')
    for (let length = 0; length <= content.length; length++) {
      await writeFile(join(directory, 'udf', 'a.lua.tmp'), content.subarray(0, length))
      const again = await opened(directory)
      assert.equal(Buffer.from(again.get('a.lua')!.content).toString(), 'return "old"')
      assert.deepEqual(await readdir(join(directory, 'udf')), ['a.lua'])
    }
    await writeFile(join(directory, 'udf', 'never.lua.tmp'), 'x')
    assert.deepEqual((await opened(directory)).list().map(({ name }) => name), ['a.lua'])
  })

  it('foreign_files_are_left_alone', async () => {
    const directory = await work()
    await mkdir(join(directory, 'udf', 'sub.lua'), { recursive: true })
    await writeFile(join(directory, 'udf', 'README'), 'mine')
    const store = await opened(directory)
    assert.deepEqual(store.list(), [])
    assert.equal(await readFile(join(directory, 'udf', 'README'), 'utf8'), 'mine')
  })

  it('names_that_leave_the_directory_or_break_the_protocol_are_refused', async () => {
    const directory = await work()
    const store = await opened(directory)
    const names = ['../a.lua', 'a/b.lua', 'a\\b.lua', '.lua', '..lua', '.hidden.lua', 'a', 'a.txt', 'a.lua ', 'a;b.lua', 'a=b.lua', 'a,b.lua', 'a:b.lua', 'a\0.lua', 'a\nb.lua', 'ä.lua', '',
      `${'x'.repeat(124)}.lua`]
    for (const name of names) {
      assert.equal((await refusal(put(store, name, source('x = 1')))).code, 'udf-name', name)
      assert.equal((await refusal(store.remove(name))).code, 'udf-name', name)
    }
    await put(store, `${'x'.repeat(123)}.lua`, source('x = 1'))
    assert.equal((await readdir(join(directory, 'udf'))).length, 1)
  })

  it('what_does_not_compile_or_is_too_large_is_refused_with_its_line', async () => {
    const store = await opened(await work())
    await put(store, 'a.lua', source('return 1'))
    const error = await refusal(put(store, 'a.lua', source('local x = 1\n\nreturn = 2\n')))
    assert.deepEqual([error.code, error.line], ['udf-compile', 3])
    assert.match(error.message, /unexpected symbol near '='/)
    assert.equal((await refusal(put(store, 'a.lua', new Uint8Array(MODULE_BYTES_MAX + 1).fill(32)))).code, 'udf-too-large')
    assert.equal(Buffer.from(store.get('a.lua')!.content).toString(), 'return 1')
    await put(store, 'b.lua', new Uint8Array(MODULE_BYTES_MAX).fill(32))
  })

  it('a_source_that_compiles_in_quadratic_time_is_refused_and_does_not_hold_up_the_main_thread', async () => {
    const store = await opened(await work())
    await put(store, 'legit.lua', source(Array.from({ length: 2000 }, (_, i) => `function f${i}(rec) for i = 1, 3 do if i > 2 then break end end return rec.a or ${i} end`).join('\n')))
    let late = 0
    let last = performance.now()
    const tick = setInterval(() => {
      const now = performance.now()
      late = Math.max(late, now - last)
      last = now
    }, 10)
    for (const text of ['goto a '.repeat(80_000) + '::a::', 'x = a' + ' or a'.repeat(150_000)]) {
      const error = await refusal(put(store, 'a.lua', source(text)))
      assert.equal(error.code, 'udf-load')
      assert.match(error.message, /compiling exceeded the limits/)
    }
    clearInterval(tick)
    assert.ok(late < 1000, `the main thread stood still for ${late} ms`)
    assert.equal(store.get('a.lua'), undefined)
    const error = await refusal(put(store, 'a.lua', source('-- long\n'.repeat(4000) + 'return = 2')))
    assert.deepEqual([error.code, error.line], ['udf-compile', 4001])
  })

  it('a_main_chunk_is_not_run_when_it_is_stored', async () => {
    const store = await opened(await work())
    await put(store, 'a.lua', source('while true do end'))
  })

  it('a_directory_that_cannot_be_written_is_an_error_with_its_path', async () => {
    const directory = await work()
    const store = await opened(directory)
    await rm(join(directory, 'udf'), { recursive: true })
    await writeFile(join(directory, 'udf'), 'in its place')
    const error = await refusal(put(store, 'a.lua', source('x = 1')))
    assert.equal(error.code, 'udf-storage')
    assert.match(error.message, /udf\/a\.lua/)
  })
})
