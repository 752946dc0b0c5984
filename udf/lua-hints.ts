// What to use instead of what this Lua does not have: names of older and newer versions, and of libraries that are left out.
//
// Such names are absent, so that scripts which look for them find another way. A script that uses one all the same ends with an error
// about a nil value; this says in addition what it meant.

const HINTS: Record<string, string> = {
  setfenv: "it was of Lua 5.1; give 'load' an environment, or declare 'local _ENV'",
  getfenv: "it was of Lua 5.1; the environment is '_ENV'",
  module: "it was of Lua 5.1; define globals, or return a table, and use 'require'",
  newproxy: 'it was of Lua 5.1; use a table with a metatable',
  gcinfo: 'memory is managed by the node',
  foreach: "it was of Lua 5.1; use 'for k, v in pairs(t)'",
  foreachi: "it was of Lua 5.1; use 'for i, v in ipairs(t)'",
  setn: 'it was of Lua 5.0; the length of a table follows from what is in it',
  gfind: "it was of Lua 5.0; use 'string.gmatch'",
  mod: "it was of Lua 5.0; use '%' or 'math.fmod'",
  bit32: 'it was of Lua 5.2; use the operators & | ~ << >>',
  bit: 'use the operators & | ~ << >>',
  dofile: "there are no files here; use 'require' for modules",
  loadfile: "there are no files here; use 'require' for modules",
  dump: 'there is no bytecode here',
  io: 'there are no files here',
  package: "'require' finds modules that were put on the node, nothing else",
  execute: 'there is no system here', exit: 'there is no system here', getenv: 'there is no system here', remove: 'there is no system here',
  rename: 'there is no system here', tmpname: 'there is no system here', setlocale: 'there is no system here',
  set_context: 'a call has no context to set', get_config: 'a call has no configuration'
}
/** Of the first API of this kind. */
const PUT = /^put_(string|bytes|byte|u?int\d*(_[bl]e)?|var_int)$/
const ABSENT = /attempt to (?:call|index) a nil value \((?:global|field|method) '(\w+)'\)/
/** A library that has the name of a function here. */
const DEBUG = /attempt to index a function value \(global 'debug'\)/

/** The message of an error, with what to use instead where it is about something that is known and not here. */
export function hinted (message: string): string {
  const name = ABSENT.exec(message)?.[1]
  if (name === undefined) return DEBUG.test(message) ? `${message}: 'debug' writes to the log; there is no debug library` : message
  const hint = PUT.test(name) ? `use 'bytes.set_${name.slice(4)}', whose offsets count from 1` : Object.hasOwn(HINTS, name) ? HINTS[name] : undefined
  return hint === undefined ? message : `${message}: ${hint}`
}

const ATTRIBUTE = /^\s*local\s[^=]*<\s*(const|close)\s*>/

/** The message of a compiler's error about a line, which may hold what a later Lua would take. */
export function hintedCompilation (message: string, line: string): string {
  const attribute = message.includes("'<'") ? ATTRIBUTE.exec(line)?.[1] : undefined
  return attribute === undefined ? message : `${message}: <${attribute}> is of Lua 5.4, this is Lua 5.3; ${attribute === 'const' ? 'leave it out' : 'close the value yourself'}`
}
