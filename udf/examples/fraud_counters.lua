-- Fraud counters: what was paid with a card in the last minute, hour and day, and whether that is suspicious. The key is the card.
--
--   minutes (map)   minute since 1970 -> list of count and sum, of the last hour
--   hours (map)     hour since 1970   -> the same, of the last day
--
-- A window slides in steps of a sixtieth or a twenty-fourth of its length: so 84 small entries are enough, however many payments there are.

local MINUTE_MS = 60 * 1000
local HOUR_MS = 60 * MINUTE_MS

-- What is suspicious: more payments, or more cents, than this in a window. Each worker of the node has a table of its own, so calls only read it.
local LIMITS = {
  minute = { count = 3, sum = 100000 },
  hour = { count = 10, sum = 300000 },
  day = { count = 40, sum = 500000 }
}

-- Counts a payment in the slot of now, and drops the slots that have left the window.
local function note(slots, now, kept, cents)
  -- Which slots go is decided first: a map is not to be changed while it is walked.
  local old = {}
  for slot in map.keys(slots) do
    if slot <= now - kept then old[#old + 1] = slot end
  end
  for _, slot in ipairs(old) do slots[slot] = nil end
  local entry = slots[now] or list{ 0, 0 }
  entry[1] = entry[1] + 1
  entry[2] = entry[2] + cents
  slots[now] = entry
end

-- What the slots of a window hold together, that of now and those before.
local function summed(slots, now, length)
  local count, sum = 0, 0
  for slot, entry in map.pairs(slots) do
    if slot > now - length and slot <= now then
      count = count + entry[1]
      sum = sum + entry[2]
    end
  end
  return map{ count = count, sum = sum }
end

local function windows(rec, now_ms)
  local minutes, hours = rec.minutes or map(), rec.hours or map()
  local minute, hour = now_ms // MINUTE_MS, now_ms // HOUR_MS
  return map{ minute = summed(minutes, minute, 1), hour = summed(minutes, minute, 60), day = summed(hours, hour, 24) }
end

-- The first limit that is exceeded, in words, or nil.
local function suspicion(seen)
  for _, window in ipairs{ 'minute', 'hour', 'day' } do
    for _, what in ipairs{ 'count', 'sum' } do
      local limit = LIMITS[window][what]
      if seen[window][what] > limit then return what .. ' of the ' .. window .. ' is above ' .. limit end
    end
  end
end

-- Counts a payment. Returns a map: suspicious (a text, or nil), and for minute, hour and day how many payments and cents there were, this one included.
function pay(rec, cents)
  if math.type(cents) ~= 'integer' or cents <= 0 then error('a payment is an integer of cents above 0') end
  local now_ms = aerospike:get_current_time()
  local minutes, hours = rec.minutes or map(), rec.hours or map()
  note(minutes, now_ms // MINUTE_MS, 60, cents)
  note(hours, now_ms // HOUR_MS, 24, cents)
  rec.minutes = minutes
  rec.hours = hours
  -- After a day without a payment there is nothing to remember.
  record.set_ttl(rec, 24 * 3600)
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end

  local seen = windows(rec, now_ms)
  seen.suspicious = suspicion(seen)
  -- This is in the node's log, with module and line.
  if seen.suspicious ~= nil then warn('a payment of %d cents is suspicious: %s', cents, seen.suspicious) end
  return seen
end

-- The counters as they are, without a payment.
function look(rec)
  return windows(rec, aerospike:get_current_time())
end
