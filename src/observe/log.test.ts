import assert from 'node:assert/strict'
import { test } from 'node:test'
import { contextLogger, createLogger, formatLine, isColourful } from './log.js'

function stream (isTTY: boolean) {
  const lines: string[] = []
  return { isTTY, lines, write: (text: string) => { lines.push(text) } }
}

test('json lines carry time, level, context and fields', () => {
  const to = stream(false)
  contextLogger(createLogger({ level: 'info', format: 'auto' }, to), 'xdr').info({ dc: 'west' }, 'shipping')
  const { time, ...line } = JSON.parse(to.lines[0]!) as Record<string, unknown>
  assert.deepEqual(line, { level: 'info', context: 'xdr', dc: 'west', msg: 'shipping' })
  assert.ok(!Number.isNaN(Date.parse(time as string)))
})

test('auto is pretty on a terminal, and less than the level is left out', () => {
  const to = stream(true)
  const log = createLogger({ level: 'warn', format: 'auto' }, to)
  log.info('not this')
  log.warn('this')
  assert.equal(to.lines.length, 1)
  assert.match(to.lines[0]!, /WARN.* this/)
})

test('silent writes nothing', () => {
  const to = stream(false)
  createLogger({ level: 'silent', format: 'json' }, to).fatal('x')
  assert.deepEqual(to.lines, [])
})

test('a pretty line reads from left to right', () => {
  const line = { level: 'info', time: '2026-01-02T03:04:05.678Z', context: 'xdr', msg: 'shipping', dc: 'west', note: 'two words', n: 1 }
  assert.equal(formatLine(line, false), '03:04:05.678 INFO  xdr: shipping dc=west note="two words" n=1\n')
  assert.match(formatLine(line, true), /\u001b\[32mINFO \u001b\[0m/)
})

test('an error shows its stack, a warning only its message', () => {
  const to = stream(true)
  const log = createLogger({ level: 'info', format: 'pretty' }, to)
  log.error({ err: new Error('broken') }, 'failed')
  log.warn({ err: new Error('odd') }, 'went on')
  assert.match(to.lines[0]!, /failed.*\nError: broken\n {4}at /)
  assert.match(to.lines[1]!, /went on .*odd\n$/)
})

test('colours follow the terminal and NO_COLOR', () => {
  assert.equal(isColourful({ isTTY: true }, {}), true)
  assert.equal(isColourful({ isTTY: true }, { NO_COLOR: '1' }), false)
  assert.equal(isColourful({ isTTY: true }, { TERM: 'dumb' }), false)
  assert.equal(isColourful({}, {}), false)
})
