local START = 1700000000000

local function truck()
  test.time(START)
  local rec = test.record{ key = 'truck-9', set = 'fleet' }
  test.equal(test.apply(rec, 'geofence', 'fence', 'depot', 47.4503, 8.5619, 800), 1)
  test.equal(test.apply(rec, 'geofence', 'fence', 'airport', 47.4582, 8.5555, 3000), 2)
  return rec
end

local function move(rec, lat, lon)
  return test.apply(rec, 'geofence', 'move', lat, lon)
end

function test_entering_and_leaving_are_told_once()
  local rec = truck()
  test.equal(move(rec, 47.3769, 8.5417), {})
  test.equal(move(rec, 47.4510, 8.5620), { { event = 'enter', fence = 'depot' }, { event = 'enter', fence = 'airport' } })
  test.equal(move(rec, 47.4512, 8.5621), {})
  test.advance(90000)
  test.equal(move(rec, 47.4582, 8.5755), { { event = 'leave', fence = 'depot', seconds = 90 } })
  test.equal(rec.bins.inside, { airport = START })
end

function test_distances_are_those_on_the_ground()
  local rec = test.record()
  -- A degree of latitude is 111.2 km; at 60 degrees north one of longitude is half of that.
  test.apply(rec, 'geofence', 'fence', 'near', 60, 10, 55700)
  test.equal(move(rec, 60, 11), { { event = 'enter', fence = 'near' } })
  test.equal(#move(rec, 60, 11.02), 1)
  -- Over the meridian where longitudes begin anew.
  rec = test.record()
  test.apply(rec, 'geofence', 'fence', 'date line', 0, 179.99, 5000)
  test.equal(#move(rec, 0, -179.99), 1)
end

function test_a_fence_that_is_gone_is_forgotten()
  local rec = truck()
  move(rec, 47.4510, 8.5620)
  test.equal(test.apply(rec, 'geofence', 'unfence', 'depot'), 1)
  test.equal(move(rec, 0.0, 0.0), { { event = 'leave', fence = 'airport', seconds = 0 } })
end

function test_a_vehicle_without_fences_has_no_events()
  local rec = test.record()
  test.equal(move(rec, 1.5, 2.5), {})
  test.equal(rec.bins, { lat = 1.5, lon = 2.5, inside = {} })
end

function test_what_is_no_place_is_refused()
  test.fails(test.record(), 'geofence', 'move', 91, 0)
  test.fails(test.record(), 'geofence', 'move', 0/0, 0)
  test.fails(test.record(), 'geofence', 'move', 'here', 0)
  test.fails(test.record(), 'geofence', 'fence', 'depot', 47.0, 8.0, 0)
end
