// Plain aligned text for people.

export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => string
  readonly align?: 'left' | 'right'
}

/** A header and one line a row, columns two spaces apart; empty without rows. */
export function table<Row> (rows: readonly Row[], columns: ReadonlyArray<Column<Row>>, colours: boolean): string {
  if (rows.length === 0) return ''
  const cells = rows.map((row) => columns.map((column) => printable(column.value(row))))
  const widths = columns.map((column, i) => Math.max(width(column.title), ...cells.map((line) => width(line[i]!))))
  const layOut = (line: readonly string[]) => line.map((cell, i) => {
    const gap = ' '.repeat(widths[i]! - width(cell))
    return columns[i]!.align === 'right' ? gap + cell : cell + gap
  }).join('  ').trimEnd()
  const header = layOut(columns.map(({ title }) => title))
  return [colours ? `\u001b[1m${header}\u001b[0m` : header, ...cells.map(layOut)].map((line) => `${line}\n`).join('')
}

/** Two columns without a header. */
export function pairsTable (pairs: ReadonlyArray<readonly [string, string]>): string {
  const widest = Math.max(0, ...pairs.map(([name]) => width(name)))
  return pairs.map(([name, value]) => `${name}${' '.repeat(widest - width(name))}  ${printable(value)}`.trimEnd() + '\n').join('')
}

// Code points; wide scripts come out a little ragged.
function width (text: string): number {
  return [...text].length
}

// What a record holds must not move the cursor or change the terminal.
function printable (text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
}
