// Completion scripts, made from the commands themselves.

import type { Command } from 'commander'
import { UsageError, type Io } from './io.js'

interface Entry {
  /** Words after `perigee`; empty for the program. */
  readonly path: readonly string[]
  readonly commands: ReadonlyArray<{ name: string, description: string }>
  readonly options: ReadonlyArray<{ flag: string, description: string, takesFile: boolean }>
}

const FILE_OPTIONS: ReadonlySet<string> = new Set(['--config', '--output', '--directory', '--output-file', '--input-file', '--continue', '--verify'])

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
    options: command.options.filter(({ long }) => long !== undefined && long !== null).map((option) => ({
      flag: option.long!, description: option.description, takesFile: FILE_OPTIONS.has(option.long!)
    }))
  }
  return [entry, ...command.commands.flatMap((child) => entriesOf(child, [...path, child.name()]))]
}

function words ({ commands, options }: Entry): string {
  return [...commands.map(({ name }) => name), ...options.map(({ flag }) => flag)].join(' ')
}

/** The longest known path is looked up by its words; what is no command word does not change it. */
function bash (entries: readonly Entry[]): string {
  return `# perigee completion for bash; put this into ~/.bashrc: source <(perigee completion bash)
_perigee() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in
${entries.filter(({ path }) => path.length > 0).map(({ path }) => `      "${['', ...path].join(' ')}") path="${['', ...path].join(' ')}" ;;`).join('\n')}
    esac
  done
  case "$path" in
${entries.map((entry) => `    "${['', ...entry.path].join(' ').trimEnd()}") COMPREPLY=($(compgen -W "${words(entry)}" -- "$current")) ;;`).join('\n')}
  esac
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}
complete -o filenames -F _perigee perigee
`
}

function zsh (entries: readonly Entry[]): string {
  return `#compdef perigee
# perigee completion for zsh; put this into ~/.zshrc after compinit: source <(perigee completion zsh)
_perigee() {
  local at="" word
  for word in "\${words[@]:1:$((CURRENT - 2))}"; do
    case "$at $word" in
${entries.filter(({ path }) => path.length > 0).map(({ path }) => `      "${['', ...path].join(' ')}") at="${['', ...path].join(' ')}" ;;`).join('\n')}
    esac
  done
  local -a found
  case "$at" in
${entries.map((entry) => `    "${['', ...entry.path].join(' ').trimEnd()}") found=(${[
    ...entry.commands.map(({ name, description }) => quoted(`${name}:${description}`)), ...entry.options.map(({ flag, description }) => quoted(`${flag}:${description}`))
  ].join(' ')}) ;;`).join('\n')}
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
      ...entry.options.map(({ flag, description, takesFile }) =>
        `complete -c perigee -n ${quoted(condition)} -l ${flag.slice(2)}${takesFile ? ' -r' : ''} -d ${quoted(description)}`)
    ]
  })
  return `# perigee completion for fish; put this into ~/.config/fish/completions/perigee.fish\n${lines.join('\n')}\n`
}

function quoted (text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "'\\''")}'`
}
