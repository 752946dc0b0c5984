// The reason that `--update-gaps` writes beside a failure it has not seen before, by file. A better one, written by hand into
// known-gaps.json, is kept.

const REASONS: ReadonlyArray<readonly [files: RegExp, reason: string]> = [
  [/^admin$/, 'users and roles are not there yet'],
  [/^query$/, 'aggregations are not there yet'],
  [/^mrt_/, 'transactions are not there yet'],
  [/^set_xdr_filter$/, 'XDR filters are not there yet'],
  [/^(metrics|prefer_rack|timeout_delay)/, 'needs a server set up for it']
]

export function defaultReason (file: string): string {
  return REASONS.find(([files]) => files.test(file))?.[1] ?? 'not looked into yet'
}
