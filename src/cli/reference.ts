// The command list of docs/reference/cli.md, rendered from the commands; a test compares it with the page.

import type { Argument, Command } from 'commander'

export const COMMANDS_BEGIN = '<!-- commands: rendered from src/cli/program.ts -->'
export const COMMANDS_END = '<!-- /commands -->'

export function renderCommands (program: Command): string {
  return leaves(program, []).map(([path, command]) => section(path, command)).join('\n\n')
}

function leaves (command: Command, path: readonly string[]): Array<[string, Command]> {
  return command.commands.flatMap((child): Array<[string, Command]> => {
    const here = [...path, child.name()]
    return child.commands.length > 0 ? leaves(child, here) : [[here.join(' '), child]]
  })
}

function section (path: string, command: Command): string {
  const args = command.registeredArguments
  const lines = [
    `### \`perigee ${[path, ...args.map(usage)].join(' ')}\``,
    '',
    `${capital(command.description())}.`
  ]
  const rows = [
    ...args.filter(({ description }) => description !== '').map((argument) => [`\`${argument.name()}\``, argument.description]),
    ...command.options.map((option) => [`\`${option.flags}\``, [
      option.description,
      option.argChoices === undefined ? undefined : `one of ${option.argChoices.join(', ')}`,
      option.envVar === undefined ? undefined : `also from \`${option.envVar}\``,
      option.defaultValue === undefined ? undefined : `default \`${String(option.defaultValue)}\``
    ].filter((part) => part !== undefined).join('; ')])
  ]
  if (rows.length > 0) lines.push('', '| Argument or option | Meaning |', '|---|---|', ...rows.map((cells) => `| ${cells.join(' | ')} |`))
  return lines.join('\n')
}

function usage (argument: Argument): string {
  const name = `${argument.name()}${argument.variadic ? '...' : ''}`
  return argument.required ? `<${name}>` : `[${name}]`
}

function capital (text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
