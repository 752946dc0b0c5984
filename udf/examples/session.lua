-- Sessions that end after a time without use, and at the latest after a fixed one. The key of the record is the session's id.
--
--   user (string)       whose it is
--   idle (integer)      seconds without use after which it ends
--   ends_at (integer)   when it ends at the latest, in seconds since 1970
--   data (map)          what the application keeps in it
--
-- The time to live of the record does the work: a session that has ended is not there any more, for every client, without anybody cleaning up.

local function now()
  return aerospike:get_current_time() // 1000
end

-- Pushes the end out, but not beyond the fixed one. Returns the seconds that are left.
local function prolong(rec)
  local left = math.min(rec.idle, rec.ends_at - now())
  record.set_ttl(rec, left)
  return left
end

-- A session whose fixed end has come may still be stored for part of a second: a time to live has whole ones.
local function is_open(rec)
  return aerospike:exists(rec) and rec.ends_at > now()
end

-- Starts a session. `idle` and `longest` are seconds. An id that is in use is an error: ids are random, so it is a mistake or an attack.
function open(rec, user, idle, longest)
  if aerospike:exists(rec) then error('the session is there already') end
  if math.type(idle) ~= 'integer' or math.type(longest) ~= 'integer' or idle < 1 or longest < idle then
    error('idle and longest are seconds, and longest is not below idle')
  end
  rec.user = user
  rec.idle = idle
  rec.ends_at = now() + longest
  rec.data = map()
  local left = prolong(rec)
  aerospike:create(rec)
  return left
end

-- To be called with each request of the user. Returns user, data and the seconds that are left, or nil when there is no such session (any more).
function use(rec)
  if not is_open(rec) then return nil end
  local left = prolong(rec)
  -- Without an assignment this is a touch: it writes the new time to live.
  aerospike:update(rec)
  return map{ user = rec.user, data = rec.data, left = left }
end

-- Keeps a value under a name, nil removes it. It counts as use. Returns whether there is such a session.
function keep(rec, name, value)
  if not is_open(rec) then return false end
  local data = rec.data
  data[name] = value
  -- A changed map must be assigned again, or the change is gone with the call.
  rec.data = data
  prolong(rec)
  aerospike:update(rec)
  return true
end

-- Ends a session. Returns whether there was one.
function close(rec)
  return aerospike:remove(rec) == 0
end
