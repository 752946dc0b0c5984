// Every command with its arguments and options. A command's code is loaded when it runs, so that `perigee --help` is quick.

import { createRequire } from 'node:module'
import { Argument, Command, Option } from 'commander'
import type { IndexKeyType, IndexType } from '../engine/native.js'
import type { Io } from './io.js'
import { packageRoot } from './package-root.js'
import type { BackupCommandOptions } from './commands/backup.js'
import type { CreateOptions } from './commands/indexes.js'
import type { RestoreCommandOptions } from './commands/restore.js'
import type { RecordOptions, WriteOptions } from './commands/record.js'
import type { AggregateOptions } from './commands/udf-aggregate.js'
import type { TestOptions } from './commands/udf-test.js'
import type { UdfWatchOptions } from './commands/udf-watch.js'
import type { TargetOptions } from './target.js'
import type { KeyType } from './values.js'
import type { WatchOptions } from './watch.js'

/** Called with the code to end with, by commands for which 1 is an answer rather than an error. */
export type End = (code: number) => void

export function buildProgram (io: Io, end: End): Command {
  const { version } = createRequire(import.meta.url)(`${packageRoot()}/package.json`) as { version: string }
  const program = new Command('perigee')
    .description('A clustered record store that people program.')
    .version(version, '-V, --version', 'print the version')
    // -h is the host, as in other tools for this protocol.
    .helpOption('--help', 'print this help')
    .helpCommand(false)
    .enablePositionalOptions()
    .showHelpAfterError('(add --help for how it is used)')
    .exitOverride()
    .configureOutput({ writeOut: (text) => io.out(text), writeErr: (text) => io.err(text) })

  serving(program, io)
  asking(program, io, end)
  indexes(program, io)
  records(program, io, end)
  backups(program, io, end)
  tools(program, io, end)
  return program
}

function serving (program: Command, io: Io): void {
  program.command('serve')
    .description('run one node until SIGINT or SIGTERM')
    .requiredOption('-c, --config <file>', 'configuration, see docs/reference/configuration.md')
    .action(async ({ config }: { config: string }) => (await import('./commands/serve.js')).serve(config))

  program.command('quickstart')
    .description('start two datacenters on this machine that ship to each other, and try them')
    .option('--once', 'do everything once, print one line of JSON, end')
    .option('--directory <directory>', 'where the nodes keep their files', './data')
    .option('--base-port <port>', 'port of the first datacenter; the second is a thousand above it', '3000')
    .action(async (options: { once?: boolean, directory: string, basePort: string }) => (await import('./commands/serve.js')).startQuickstart(options))

  const config = program.command('config').helpCommand(false).description('configuration files')
  json(config.command('check').description('check a configuration file; reports every error at once').argument('<file>'))
    .action(async (file: string, options: { json?: boolean }) => (await import('./commands/config.js')).checkConfig(io, file, options))
}

function asking (program: Command, io: Io, end: End): void {
  target(program.command('info').description('send info commands and print the answers').argument('<command...>', 'such as statistics, namespace/test, get-config:context=service'))
    .option('--raw', 'print the answers as they come')
    .option('--all', 'ask every node of the cluster')
    .action(async (commands: string[], options: TargetOptions & { raw?: boolean, all?: boolean }) => (await import('./commands/info.js')).info(io, commands, options))

  const udf = program.command('udf').helpCommand(false).description('Lua modules')
  target(udf.command('put').description('register modules, or replace them').argument('<path...>', 'Lua files, or folders of them'))
    .option('--name <name>', 'name of the module (default: the name of the file)')
    .action(async (paths: string[], options: TargetOptions & { name?: string }) => (await import('./commands/udf.js')).put(io, paths, options))
  target(udf.command('list').description('list the modules'))
    .action(async (options: TargetOptions) => (await import('./commands/udf.js')).list(io, options))
  target(udf.command('get').description('print a module').argument('<name>', 'name of the module'))
    .option('--output <file>', 'write it to a file')
    .action(async (name: string, options: TargetOptions & { output?: string }) => (await import('./commands/udf.js')).get(io, name, options))
  target(udf.command('remove').description('remove a module').argument('<name>', 'name of the module'))
    .action(async (name: string, options: TargetOptions) => (await import('./commands/udf.js')).remove(io, name, options))
  target(udf.command('stats').description('calls, errors, records and times of each function since the node started').argument('[module]', 'only those of this module'))
    .option('--watch [seconds]', 'print it again and again (default: every second)')
    .action(async (module: string | undefined, options: TargetOptions & WatchOptions) => (await import('./commands/udf-stats.js')).stats(io, module, options))
  target(udf.command('aggregate').description('have a stream function work on the records of a namespace, and print what it makes of them, a line a value')
    .argument('<module>').argument('<function>').argument('[args...]', 'as JSON, or text'))
    .requiredOption('-n, --namespace <name>', 'of the records')
    .option('-s, --set <name>', 'only records of this set')
    .option('-w, --where <range>', 'only what a secondary index has there: bin = value, bin between low and high; list of bin = value, and so for map-keys and map-values')
    .option('--time-limit <ms>', 'end it after so long (default: none)')
    .option('--rps <n>', 'records a second, at most')
    .action(async (module: string, name: string, args: string[], options: AggregateOptions) =>
      (await import('./commands/udf-aggregate.js')).aggregate(io, { module, name, args }, options))
  json(udf.command('test').description('run the tests of modules on this machine; needs no node').argument('<path...>', 'modules with tests beside them (NAME.test.lua), tests, or folders of them'))
    .option('-f, --filter <pattern>', 'only tests whose names match this regular expression')
    .option('-w, --watch', 'run them again whenever a file in their folders changes')
    .action(async (paths: string[], options: TestOptions) => end(await (await import('./commands/udf-test.js')).test(io, paths, options)))
  target(udf.command('watch').description('register modules now and whenever they are saved').argument('<path...>', 'Lua files, or folders of them'))
    .option('-t, --test', 'run the tests beside a module first, and register it only when they pass')
    .action(async (paths: string[], options: UdfWatchOptions) => (await import('./commands/udf-watch.js')).watch(io, paths, options))

  target(program.command('truncate').description('remove every record of a namespace, or of a set, that was last updated before now').argument('<namespace>').argument('[set]'))
    .option('--before <time>', 'before this time instead: 2026-11-21T06:00:00Z, or so long ago, such as 2h')
    .option('--undo', 'take a truncation back: records that were not removed yet show again')
    .action(async (namespace: string, set: string | undefined, options: TargetOptions & { before?: string, undo?: boolean }) =>
      (await import('./commands/truncate.js')).truncate(io, namespace, set, options))

  const xdr = program.command('xdr').helpCommand(false).description('shipping to other datacenters')
  target(xdr.command('status').description('how shipping goes, for each datacenter and namespace'))
    .option('--watch [seconds]', 'print it again and again (default: every second)')
    .action(async (options: TargetOptions & WatchOptions) => (await import('./commands/xdr.js')).status(io, options))

  target(program.command('latency').description('how long requests took in the last 10 to 20 seconds, for each kind'))
    .option('--watch [seconds]', 'print it again and again (default: every second)')
    .action(async (options: TargetOptions & WatchOptions) => (await import('./commands/latency.js')).latency(io, options))
}

function indexes (program: Command, io: Io): void {
  const index = program.command('index').helpCommand(false).description('secondary indexes')
  target(index.command('create').description('make an index; it is built in the background').argument('<namespace>').argument('<name>', 'of the index, at most 63 bytes'))
    .option('-s, --set <set>', 'of the records of this set (default: of all records)')
    .option('-b, --bin <name>', 'of the values of this bin')
    .addOption(new Option('-t, --type <type>', 'what is indexed; values of other types are left out').choices(['numeric', 'string', 'blob', 'geo2dsphere'] satisfies IndexKeyType[]))
    .addOption(new Option('-i, --index-type <type>', 'the value itself, the elements of a list, the keys or the values of a map; or all records of a set')
      .choices(['default', 'list', 'mapkeys', 'mapvalues', 'set'] satisfies IndexType[]).default('default'))
    .option('--context <step>', 'way to a value within the bin, such as map-key=address or list-index=0; again for each further step', collected)
    .option('--expression <base64>', 'of what this expression gives, in place of --bin')
    .option('-w, --wait', 'wait until it is built on every node')
    .action(async (namespace: string, name: string, options: CreateOptions) => (await import('./commands/indexes.js')).create(io, namespace, name, options))
  target(index.command('list').description('list the indexes'))
    .option('-n, --namespace <name>', 'only those of this namespace')
    .action(async (options: TargetOptions & { namespace?: string }) => (await import('./commands/indexes.js')).list(io, options))
  target(index.command('show').description('print what an index is of, and its statistics').argument('<namespace>').argument('<name>'))
    .action(async (namespace: string, name: string, options: TargetOptions) => (await import('./commands/indexes.js')).show(io, namespace, name, options))
  target(index.command('drop').description('take an index away').argument('<namespace>').argument('<name>'))
    .action(async (namespace: string, name: string, options: TargetOptions) => (await import('./commands/indexes.js')).drop(io, namespace, name, options))
}

function records (program: Command, io: Io, end: End): void {
  const record = (name: string, description: string) => target(program.command(name).description(description)
    .argument('<namespace>').argument('<set>', "'' for none").argument('<key>'))
    .addOption(new Option('--key-type <type>', 'what the key is; auto takes digits for an integer; bytes and digests are hexadecimal')
      .choices(['auto', 'integer', 'string', 'bytes', 'digest'] satisfies KeyType[]).default('auto'))

  record('get', 'print a record')
    .option('--bins <names>', 'only these bins, separated by commas')
    .action(async (namespace: string, set: string, key: string, options: RecordOptions & { bins?: string }) =>
      end(await (await import('./commands/record.js')).get(io, { namespace, set, key }, options)))
  write(record('put', 'write bins of a record').argument('<bin=value...>', 'values are JSON, or text as it is; null removes a bin'))
    .addOption(new Option('--exists <rule>', 'what may be there before').choices(['update', 'update-only', 'create-only', 'replace', 'replace-only']).default('update'))
    .option('--ttl <time>', 'time to live (12h, 30d), never, or unchanged; default: the namespace decides')
    .option('--send-key', 'store the key with the record')
    .action(async (namespace: string, set: string, key: string, bins: string[], options: WriteOptions) =>
      (await import('./commands/record.js')).put(io, { namespace, set, key }, bins, options))
  write(record('delete', 'delete a record; ends with 1 if there was none'))
    .option('--durable', 'leave a tombstone, so that it stays deleted after a restart')
    .action(async (namespace: string, set: string, key: string, options: WriteOptions) =>
      end(await (await import('./commands/record.js')).remove(io, { namespace, set, key }, options)))
  record('exists', 'tell whether a record is there; ends with 1 if not')
    .action(async (namespace: string, set: string, key: string, options: RecordOptions) =>
      end(await (await import('./commands/record.js')).exists(io, { namespace, set, key }, options)))
  record('apply', 'run a Lua function on a record and print what it returns')
    .argument('<module>', 'name of the module, without .lua').argument('<function>').argument('[argument...]', 'JSON, or text as it is')
    .action(async (namespace: string, set: string, key: string, module: string, name: string, args: string[], options: RecordOptions) =>
      (await import('./commands/record.js')).apply(io, { namespace, set, key }, { module, name, args }, options))
}

function backups (program: Command, io: Io, end: End): void {
  target(program.command('backup').description('write the records, Lua modules and secondary indexes of a namespace to files in the text format of asbackup'))
    .option('-n, --namespace <name>', 'what to back up')
    .option('-s, --set <set>', 'only this set; may be given several times, or hold several separated by commas', collected)
    .option('-B, --bin-list <names>', 'only these bins, separated by commas')
    .option('-d, --directory <directory>', 'write files into this directory, made if need be')
    .option('-o, --output-file <file>', 'write a single file; - is stdout')
    .option('-q, --output-file-prefix <prefix>', 'what the names of files in the directory begin with (default: the namespace)')
    .option('-r, --remove-files', 'replace a backup that is there')
    .option('--remove-artifacts', 'remove a backup that is there, and end')
    .option('-c, --continue <state>', 'go on with a backup that was stopped; a state file is left beside its files')
    .option('-F, --file-limit <MiB>', 'begin another file when one has grown to this', '250')
    .option('-w, --parallel <n>', 'scans at once, each with a file of its own', '4')
    .option('-L, --records-per-second <n>', 'at most, of all nodes together; 0 for no limit', '0')
    .option('-M, --max-records <n>', 'about so many records; 0 for all', '0')
    .option('-X, --partition-list <list>', 'only these: 7, 100-50 (50 from 100 on), or a digest in base64 to go on behind; separated by commas')
    .option('-D, --after-digest <digest>', 'only what follows this digest in its partition, and the partitions above')
    .option('-C, --compact', 'write bytes as they are, not in base64')
    .option('-x, --no-bins', 'write records without bins')
    .option('-R, --no-records', 'write no records')
    .option('-u, --no-udfs', 'write no Lua modules')
    .option('-I, --no-indexes', 'write no secondary indexes')
    .option('--no-ttl-only', 'write only records that never expire')
    .option('-e, --estimate', 'tell how large a backup would be, and end')
    .option('--estimate-samples <n>', 'records to read for an estimate', '10000')
    .option('--verify <directory>', 'compare the files of a backup with its manifest, and end')
    .option('--socket-timeout <ms>', 'a node that sends nothing for so long is asked again', '30000')
    .option('--retry-for <time>', 'how long to try again when nothing comes', '60s')
    .option('-a, --modified-after <time>', 'refused: needs filter expressions')
    .option('-b, --modified-before <time>', 'refused: needs filter expressions')
    .option('-f, --filter-exp <base64>', 'refused: needs filter expressions')
    .option('-v, --verbose', 'tell what is tried again')
    .action(async (options: BackupCommandOptions) => end(await (await import('./commands/backup.js')).backup(io, options)))

  target(program.command('restore').description('write the records, Lua modules and secondary indexes of a backup to a cluster'))
    .option('-d, --directory <directory>', 'the backup, as a directory')
    .option('-i, --input-file <file>', 'the backup, as a single file; - is stdin')
    .option('-n, --namespace <names>', 'the namespace that the backup must be of; FROM,TO writes to another')
    .option('-s, --set-list <sets>', 'only these sets, separated by commas')
    .option('-B, --bin-list <names>', 'only these bins, separated by commas')
    .option('-u, --unique', 'leave records alone that are there')
    .option('-r, --replace', 'take away the bins that the backup does not have')
    .option('-g, --no-generation', 'write also over records of the same or a higher generation')
    .option('-K, --ignore-record-error', 'count records that are refused, and go on')
    .option('-l, --extra-ttl <time>', 'lengthen the life of records that expire', '0')
    .option('-w, --parallel <n>', 'files at once', '4')
    .option('-L, --records-per-second <n>', 'at most; 0 for no limit', '0')
    .option('-R, --no-records', 'write no records')
    .option('-F, --no-udfs', 'write no Lua modules')
    .option('-I, --no-indexes', 'create no secondary indexes')
    .option('-c, --continue <state>', 'go on with a restore that was stopped')
    .option('--no-verify', 'do not compare the files with their manifest first')
    .option('--validate', 'read the files, write nothing; needs no node')
    .option('--retry-for <time>', 'how long to try a write again that may still succeed', '60s')
    .action(async (options: RestoreCommandOptions) => end(await (await import('./commands/restore.js')).restore(io, options)))
}

function tools (program: Command, io: Io, end: End): void {
  forwarding(program.command('bench').description('put load on a node; `perigee bench --help` prints its own options'))
    .action(async (args: string[]) => end(await (await import('./commands/bench.js')).bench(io, args)))
  forwarding(program.command('act').description('check a device with the storage load of this engine, see docs/guides/device-check.md; `perigee act --help` prints its own options'))
    .action(async (args: string[]) => end(await (await import('./commands/act.js')).act(io, args)))

  program.command('completion')
    .description('print a completion script for a shell')
    .addArgument(new Argument('<shell>', 'that it is for').choices(['bash', 'zsh', 'fish']))
    .action(async (shell: string) => (await import('./completion.js')).printCompletion(io, program, shell))
}

/** Of an option that may be given several times. */
function collected (value: string, before: string[] = []): string[] {
  return [...before, value]
}

/** Its arguments are another program's. */
function forwarding (command: Command): Command {
  return command.argument('[argument...]').helpOption(false).allowUnknownOption().passThroughOptions()
}

function json (command: Command): Command {
  return command.option('--json', 'print JSON')
}

function target (command: Command): Command {
  return json(command
    .addOption(new Option('-h, --host <host>', 'host of a node').env('PERIGEE_HOST').default('127.0.0.1'))
    .addOption(new Option('-p, --port <port>', 'its port').env('PERIGEE_PORT').default('3000'))
    .addOption(new Option('--timeout <ms>', 'give up after this long').default('5000'))
    .addOption(new Option('--tls', 'speak TLS; the port is that for TLS then').env('PERIGEE_TLS'))
    .addOption(new Option('--tls-name <name>', 'name that the certificate of the node has to carry (default: the host)').env('PERIGEE_TLS_NAME'))
    .addOption(new Option('--tls-ca-file <file>', 'authorities to check it against, in PEM (default: those that Node.js knows)').env('PERIGEE_TLS_CA_FILE'))
    .addOption(new Option('--tls-cert-file <file>', 'certificate to show to the node, in PEM').env('PERIGEE_TLS_CERT_FILE'))
    .addOption(new Option('--tls-key-file <file>', 'its private key').env('PERIGEE_TLS_KEY_FILE')))
}

function write (command: Command): Command {
  return command.option('--generation <n>', 'only if the record has this generation')
}
