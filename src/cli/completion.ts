// Completion scripts, made from the commands themselves.

import type { Command, Option } from 'commander'
import { UsageError, type Io } from './io.js'

interface Choice {
  /** `--type`, and `-t` where it has a short form. */
  readonly flags: readonly string[]
  readonly description: string
  /** What follows it: nothing, or a value, which may be a file, or one of some words. */
  readonly takes: 'nothing' | 'value' | 'file' | readonly string[]
}

interface Entry {
  /** Words after `perigee`; empty for the program. */
  readonly path: readonly string[]
  readonly commands: ReadonlyArray<{ name: string, description: string }>
  readonly options: readonly Choice[]
  /** What its first argument may be, where that is known. */
  readonly words: readonly string[]
}

const FILE_OPTIONS: ReadonlySet<string> = new Set([
  '--config', '--output', '--directory', '--output-file', '--input-file', '--continue', '--verify', '--tls-ca-file', '--tls-cert-file', '--tls-key-file'
])

export function printCompletion (io: Io, program: Command, shell: string): void {
  const entries = entriesOf(program, [])
  switch (shell) {
    case 'bash': return io.out(bash(entries))
    case 'zsh': return io.out(zsh(entries))
    case 'fish': return io.out(fish(entries))
    default: throw new UsageError(`${JSON.stringify(shell)} is not a shell here; allowed: bash, zsh, fish`)
  }
}

function entriesOf (command: Command, path: readonly string[]): Entry[] {
  const entry: Entry = {
    path,
    commands: command.commands.map((child) => ({ name: child.name(), description: child.description() })),
    options: command.createHelp().visibleOptions(command).map((option) => ({
      flags: [option.long, option.short].filter((flag) => flag !== undefined && flag !== null), description: option.description, takes: takesOf(option)
    })),
    words: command.registeredArguments[0]?.argChoices ?? []
  }
  return [entry, ...command.commands.flatMap((child) => entriesOf(child, [...path, child.name()]))]
}

function takesOf ({ long, required, negate, argChoices }: Option): Choice['takes'] {
  if (!required || negate) return 'nothing'
  return argChoices ?? (FILE_OPTIONS.has(long ?? '') ? 'file' : 'value')
}

function wordsOf ({ commands, options, words }: Entry): string {
  return [...commands.map(({ name }) => name), ...words, ...options.map(({ flags }) => flags[0])].join(' ')
}

/** As the scripts of bash and zsh keep it: a space before each word. */
function pathOf ({ path }: Entry): string {
  return path.map((word) => ` ${word}`).join('')
}

/** Lines of a `case` over the path and the word before: what is due after options that want something. `are` makes the body for words, `files` for files. */
function valueCases (entries: readonly Entry[], are: (words: readonly string[]) => string, files: string): string {
  const patterns = (entry: Entry, { flags }: Choice): string => flags.map((flag) => `"${pathOf(entry)} ${flag}"`).join('|')
  return entries.flatMap((entry) => entry.options.flatMap((option) => {
    if (option.takes === 'nothing') return []
    const body = option.takes === 'file' ? files : option.takes === 'value' ? 'return' : are(option.takes)
    return [`    ${patterns(entry, option)}) ${body} ;;`]
  })).join('\n')
}

/** The longest known path is looked up by its words; what is no command word does not change it. */
function bash (entries: readonly Entry[]): string {
  return `# perigee completion for bash; put this into ~/.bashrc: source <(perigee completion bash)
_perigee() {
  local current="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}" path="" word
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in
${entries.filter(({ path }) => path.length > 0).map((entry) => `      "${pathOf(entry)}") path="${pathOf(entry)}" ;;`).join('\n')}
    esac
  done
  case "$path $before" in
${valueCases(entries, (words) => `COMPREPLY=($(compgen -W "${words.join(' ')}" -- "$current")); return`, 'COMPREPLY=($(compgen -f -- "$current")); return')}
  esac
  case "$path" in
${entries.map((entry) => `    "${pathOf(entry)}") COMPREPLY=($(compgen -W "${wordsOf(entry)}" -- "$current")) ;;`).join('\n')}
  esac
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}
complete -o filenames -F _perigee perigee
`
}

function zsh (entries: readonly Entry[]): string {
  const described = ({ commands, options, words }: Entry): string => [
    ...commands.map(({ name, description }) => quoted(`${name}:${description}`)), ...words.map((word) => quoted(word)),
    ...options.map(({ flags, description }) => quoted(`${flags[0]}:${description}`))
  ].join(' ')
  return `#compdef perigee
# perigee completion for zsh; put this into ~/.zshrc after compinit: source <(perigee completion zsh)
_perigee() {
  local at="" word
  for word in "\${words[@]:1:$((CURRENT - 2))}"; do
    case "$at $word" in
${entries.filter(({ path }) => path.length > 0).map((entry) => `      "${pathOf(entry)}") at="${pathOf(entry)}" ;;`).join('\n')}
    esac
  done
  case "$at \${words[CURRENT-1]}" in
${valueCases(entries, (words) => `compadd -- ${words.map(quoted).join(' ')}; return`, '_files; return')}
  esac
  local -a found
  case "$at" in
${entries.map((entry) => `    "${pathOf(entry)}") found=(${described(entry)}) ;;`).join('\n')}
  esac
  _describe 'perigee' found || _files
}
compdef _perigee perigee
`
}

function fish (entries: readonly Entry[]): string {
  const lines = entries.flatMap((entry) => {
    const condition = entry.path.length === 0
      ? '__fish_use_subcommand'
      : entry.path.map((word) => `__fish_seen_subcommand_from ${word}`).join('; and ')
    const rest = entry.path.length > 0 && entry.commands.length > 0 ? `; and not __fish_seen_subcommand_from ${entry.commands.map(({ name }) => name).join(' ')}` : ''
    return [
      ...entry.commands.map(({ name, description }) => `complete -c perigee -f -n ${quoted(condition + rest)} -a ${name} -d ${quoted(description)}`),
      ...entry.words.length > 0 ? [`complete -c perigee -f -n ${quoted(condition)} -a ${quoted(entry.words.join(' '))}`] : [],
      ...entry.options.map(({ flags, description, takes }) => {
        const names = flags.map((flag) => flag.startsWith('--') ? ` -l ${flag.slice(2)}` : ` -s ${flag.slice(1)}`).join('')
        const value = takes === 'nothing' ? '' : takes === 'file' ? ' -r -F' : takes === 'value' ? ' -x' : ` -x -a ${quoted(takes.join(' '))}`
        return `complete -c perigee -n ${quoted(condition)}${names}${value} -d ${quoted(description)}`
      })
    ]
  })
  return `# perigee completion for fish; put this into ~/.config/fish/completions/perigee.fish\n${lines.join('\n')}\n`
}

function quoted (text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "'\\''")}'`
}
