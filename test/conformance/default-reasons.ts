// The reason that `--update-gaps` writes beside a failure it has not seen before, by file. A better one, written by hand into
// known-gaps.json, is kept.

const REASONS: ReadonlyArray<readonly [files: RegExp, reason: string]> = [
  [/^admin$/, 'users and roles are not there yet'],
  [/^(query|index)/, 'secondary indexes and queries by them are not there yet'],
  [/^scan$/, 'background queries are not there yet'],
  [/^bin_projection$/, 'operations of queries read lists and maps, and those operations are not there yet'],
  [/^batch_/, 'batch commands are not there yet'],
  [/^(lists|maps|cdt_context|path_)/, 'list and map operations are not there yet'],
  [/^(bitwise|hll)$/, 'bit and HyperLogLog operations are not there yet'],
  [/^(exp|path_expressions)/, 'expressions are not there yet'],
  [/^geojson$/, 'GeoJSON indexes are not there yet'],
  [/^mrt_/, 'transactions are not there yet'],
  [/^set_xdr_filter$/, 'expressions, and with them XDR filters, are not there yet'],
  [/^(metrics|prefer_rack|timeout_delay)/, 'needs a server set up for it']
]

export function defaultReason (file: string): string {
  return REASONS.find(([files]) => files.test(file))?.[1] ?? 'not looked into yet'
}
