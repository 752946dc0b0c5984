//! GeoJSON, and the cells that stand for it in an index.

use crate::part::choice;
use perigee_engine::record::geo::{
    CoveringLimits, Geometry, cells_around, compare, ranges_within, stored, stored_cells,
};
use perigee_wire::{particle_type as particle, validate_particle};
use serde_json::json;

/// Places that are looked for in a region.
const PLACES_MAX: usize = 24;

pub(crate) fn run(data: &[u8]) {
    match choice(data, 4) {
        Some((0, text)) => location(text, &[]),
        Some((kind, data)) => {
            let places: Vec<[f64; 2]> = data.as_chunks::<4>().0.iter().map(place).collect();
            let Some(first) = places.first() else { return };
            let shape = match kind {
                1 => json!({"type": "Point", "coordinates": first}),
                2 => {
                    let radius = f64::from(data[0]) * f64::from(data[1]) * 400.0;
                    json!({"type": "AeroCircle", "coordinates": [first, radius]})
                }
                _ => {
                    let mut rings: Vec<Vec<[f64; 2]>> = places
                        .chunks(1 + data.len() % 13)
                        .map(<[_]>::to_vec)
                        .collect();
                    for ring in &mut rings {
                        ring.push(ring[0]);
                    }
                    json!({"type": "Polygon", "coordinates": rings})
                }
            };
            location(shape.to_string().as_bytes(), &places);
        }
        None => {}
    }
}

/// Near one another where the last byte says so, so that rings are small too.
fn place([a, b, c, d]: &[u8; 4]) -> [f64; 2] {
    let (longitude, latitude) = (
        f64::from(i16::from_be_bytes([*a, *b])) * 180.0 / 32768.0,
        f64::from(i16::from_be_bytes([*c, *d])) * 90.0 / 32768.0,
    );
    match d % 4 {
        0 => [longitude / 128.0, latitude / 128.0],
        _ => [longitude, latitude],
    }
}

fn location(text: &[u8], places: &[[f64; 2]]) {
    let value = [&[0, 0, 0], text].concat();
    let limits = CoveringLimits::default();
    let Ok(geometry) = Geometry::parse(text) else {
        assert!(stored(&value, &limits).is_err());
        return;
    };
    let kept = stored(&value, &limits).expect("a location that means something");
    assert_eq!(validate_particle(particle::GEOJSON, &kept), Ok(()));
    assert!(kept.ends_with(text));
    assert_eq!(stored(&kept, &limits).as_ref(), Ok(&kept), "stored again");
    let (is_region, cells) = stored_cells(&kept).expect("cells");
    let cells: Vec<u64> = cells.collect();
    assert_eq!(is_region, geometry.is_region());
    assert!(cells.is_sorted());
    let ranges = ranges_within(&cells);
    assert!(ranges.windows(2).all(|pair| pair[0].last < pair[1].first));
    // Who looks for the cell of a point must not miss a region that holds it.
    for place in places.iter().take(PLACES_MAX) {
        let point = json!({"type": "Point", "coordinates": place}).to_string();
        let point = Geometry::parse(point.as_bytes()).expect("a point");
        if !geometry.contains(&point) {
            continue;
        }
        assert!(compare(&point, &geometry) && compare(&geometry, &point));
        let leaf = point.cells(&limits)[0];
        assert!(
            cells_around(leaf).any(|around| cells.contains(&around)),
            "{place:?} is in no cell of {}",
            String::from_utf8_lossy(text)
        );
        assert!(
            ranges
                .iter()
                .any(|range| (range.first..=range.last).contains(&leaf))
        );
    }
}
