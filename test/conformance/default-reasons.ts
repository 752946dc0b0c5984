// The reason that `--update-gaps` writes beside a title it has not seen before, by file. A better one, written by hand into
// known-gaps.json, is kept.

const REASONS: ReadonlyArray<readonly [files: RegExp, reason: string]> = [
  [/^admin$/, 'users and roles are not there yet'],
  [/^mrt_backward/, 'for servers before version 8'],
  [/^mrt_/, 'transactions are not there yet'],
  [/^udf$/, 'for servers before version 4.5.1'],
  [/^(apply|batch_apply|batch_write|put)$/, 'strong consistency is not there yet'],
  [/^set_xdr_filter$/, 'XDR filters are not there yet'],
  [/^(metrics_key_busy|prefer_rack)$/, 'needs several nodes'],
  [/^(bin_projection|client|command_queue)$/, 'the suite leaves it out before every server']
]

export function defaultReason (file: string): string {
  return REASONS.find(([files]) => files.test(file))?.[1] ?? 'not looked into yet'
}
