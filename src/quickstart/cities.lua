-- What the quickstart runs where the records are: functions on one city.

local EARTH_RADIUS_KM = 6371

local function radians(degrees)
  return degrees * math.pi / 180
end

-- Great-circle distance (haversine) from the city to a point.
local function kilometres_to(rec, lon, lat)
  local place = rec['place']
  local coordinates = place['coordinates']
  local lon1, lat1 = radians(coordinates[1]), radians(coordinates[2])
  local lon2, lat2 = radians(lon), radians(lat)
  local a = math.sin((lat2 - lat1) / 2) ^ 2 +
    math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ^ 2
  return 2 * EARTH_RADIUS_KM * math.asin(math.min(1, math.sqrt(a)))
end

-- The distance in kilometres, nil if there is no such city. Changes nothing.
function distance(rec, lon, lat)
  if not aerospike:exists(rec) then
    return nil
  end
  return kilometres_to(rec, lon, lat)
end

-- Notes that `who` came here from a point: one more in the map of visits, and the longest way anybody came.
-- Returns how often `who` has been here by now.
function visit(rec, who, lon, lat)
  if not aerospike:exists(rec) then
    return 0
  end
  local visits = rec['visits'] or map()
  visits[who] = (visits[who] or 0) + 1
  rec['visits'] = visits
  rec['longest_way'] = math.max(rec['longest_way'] or 0.0, kilometres_to(rec, lon, lat))
  aerospike:update(rec)
  return visits[who]
end
