// The tests of the language and of the API once more, with every function compiled at its first call and every loop at its sixteenth turn.

import { defaults } from '../testing.js'

Object.assign(defaults, { compileAfter: 1 })
for (const name of ['vm', 'lua-table', 'lua-integer', 'collections-api', 'bytes-api', 'record-api']) await import(`../${name}.test.js`)
