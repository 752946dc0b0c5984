-- Geofence: which areas a vehicle is in, and when it enters or leaves one. The key is the vehicle.
--
--   fences (map)   name -> map of lat, lon and radius_m: a circle on the ground
--   inside (map)   name -> when the vehicle came in, in milliseconds since 1970
--   lat, lon       where it was last, in degrees
--
-- Two positions of one vehicle that arrive at once are worked on one after the other, so an event is never reported twice.

local EARTH_RADIUS_M = 6371000
local FENCES_MAX = 100

local function check(lat, lon)
  if type(lat) ~= 'number' or type(lon) ~= 'number' or not (lat >= -90 and lat <= 90 and lon >= -180 and lon <= 180) then
    error('a position is a latitude from -90 to 90 and a longitude from -180 to 180')
  end
end

-- Metres between two positions on a sphere (the haversine formula), which is right to half a percent.
local function distance(lat1, lon1, lat2, lon2)
  local dlat = math.rad(lat2 - lat1) / 2
  local dlon = math.rad(lon2 - lon1) / 2
  local h = math.sin(dlat) ^ 2 + math.cos(math.rad(lat1)) * math.cos(math.rad(lat2)) * math.sin(dlon) ^ 2
  return 2 * EARTH_RADIUS_M * math.asin(math.min(1, math.sqrt(h)))
end

local function store(rec)
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
end

-- Adds a fence to a vehicle, or moves it. Whether the vehicle is in it is found out with its next position. Returns how many fences there are.
function fence(rec, name, lat, lon, radius_m)
  check(lat, lon)
  if type(radius_m) ~= 'number' or not (radius_m > 0) then error('a radius is a number of metres above 0') end
  local fences = rec.fences or map()
  if fences[name] == nil and map.size(fences) >= FENCES_MAX then error('a vehicle has at most ' .. FENCES_MAX .. ' fences') end
  fences[name] = map{ lat = lat, lon = lon, radius_m = radius_m }
  rec.fences = fences
  store(rec)
  return map.size(fences)
end

-- Takes a fence away, without an event. Returns how many there are.
function unfence(rec, name)
  if not aerospike:exists(rec) then return 0 end
  local fences, inside = rec.fences or map(), rec.inside or map()
  fences[name] = nil
  inside[name] = nil
  rec.fences = fences
  rec.inside = inside
  store(rec)
  return map.size(fences)
end

-- Notes where the vehicle is. Returns a list of events, each a map: event (enter or leave), fence, and for leave how long it was inside (seconds).
function move(rec, lat, lon)
  check(lat, lon)
  local now = aerospike:get_current_time()
  local events = list()
  local fences, inside = rec.fences or map(), rec.inside or map()
  for name, area in map.pairs(fences) do
    local is_inside = distance(lat, lon, area.lat, area.lon) <= area.radius_m
    if is_inside and inside[name] == nil then
      inside[name] = now
      list.append(events, map{ event = 'enter', fence = name })
    elseif not is_inside and inside[name] ~= nil then
      list.append(events, map{ event = 'leave', fence = name, seconds = (now - inside[name]) // 1000 })
      inside[name] = nil
    end
  end
  rec.lat = lat
  rec.lon = lon
  rec.inside = inside
  store(rec)
  return events
end
