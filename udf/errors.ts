// What can go wrong with a module's administration, as values with a stable code.

export const UDF_ERRORS = {
  'udf-name': 'the file name is not one a module can have',
  'udf-too-large': 'the module is larger than a module may be',
  'udf-compile': 'the module does not compile',
  'udf-load': 'the module, or one that requires it, does not load, or exceeded the limits of time or memory',
  'udf-storage': 'the module could not be written to or removed from the work directory',
  'udf-worker': 'a Lua worker thread did not start',
  'udf-closed': 'the Lua host is closed'
} as const

export type UdfErrorCode = keyof typeof UDF_ERRORS

export class UdfError extends Error {
  readonly code: UdfErrorCode
  /** Of the module's source, for 'udf-compile' and 'udf-load'; 0 when it is unknown. */
  readonly line: number

  constructor (code: UdfErrorCode, message: string, options: { line?: number, cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.line = options.line ?? 0
  }
}
