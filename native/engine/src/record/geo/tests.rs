//! Locations, compared with published cells, with distances on the sphere and with polygons in the plane.

use super::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn geometry(json: &Json) -> Result<Geometry, GeoError> {
    Geometry::parse(json.to_string().as_bytes())
}

fn shape(kind: &str, coordinates: Json) -> Geometry {
    let json = json!({"type": kind, "coordinates": coordinates});
    geometry(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn point(longitude: f64, latitude: f64) -> Geometry {
    shape("Point", json!([longitude, latitude]))
}

/// As a server stores it.
fn stored_text(text: &str) -> Result<Vec<u8>, ResultCode> {
    stored(
        format!("\0\0\0{text}").as_bytes(),
        &CoveringLimits::default(),
    )
}

fn is_covered(region: &Geometry, point: &Geometry, limits: &CoveringLimits) -> bool {
    let leaf = point.cells(limits)[0];
    let cells = region.cells(limits);
    let by_range = ranges_within(&cells)
        .iter()
        .any(|range| (range.first..=range.last).contains(&leaf));
    let by_ancestor = cells_around(leaf).any(|cell| cells.contains(&cell));
    assert_eq!(by_range, by_ancestor, "two ways to look up one point");
    by_range
}

/// Ids and places that the authors of the cells publish, the places rounded to nine digits.
#[test]
fn points_are_in_the_cells_that_are_published_for_them() {
    let cases = [
        (0x47a1_cbd5_9552_2b39, 49.703_498_679, 11.770_681_595),
        (0x4652_5318_b63b_e0f9, 55.685_376_759, 12.588_490_937),
        (0x52b3_0b71_698e_729d, 45.486_546_517, -93.449_700_022),
        (0x46ed_8886_cfad_da85, 58.299_984_854, 23.049_300_056),
        (0x3663_f18a_24cb_e857, 34.364_439_040, 108.330_699_969),
        (0x010a_06c0_a948_cf5d, -30.694_551_352, -30.048_758_753),
        (0x2b2b_fd07_6787_c5df, -25.285_264_027, 133.823_116_966),
        (0xb09d_ff88_2a78_09e1_u64, -75.000_000_031, 0.000_000_133),
    ];
    for (id, latitude, longitude) in cases {
        let found = point(longitude, latitude).cells(&CoveringLimits::default());
        assert_eq!(found.len(), 1);
        assert_eq!(CellID(found[0]).parent(25), CellID(id).parent(25), "{id:x}");
        assert!(CellID(found[0]).is_leaf());
        assert_eq!(cells_around(found[0]).last(), Some(found[0]));
        assert_eq!(cells_around(found[0]).count(), 31);
    }
}

#[test]
fn values_are_stored_with_cells_of_our_own() {
    let text = r#"{"type":"Point","coordinates":[103.913,1.308]}"#;
    let value = stored_text(text).unwrap();
    let (is_region, cells) = stored_cells(&value).unwrap();
    let cells: Vec<u64> = cells.collect();
    assert!(!is_region);
    assert_eq!(
        cells,
        point(103.913, 1.308).cells(&CoveringLimits::default())
    );
    assert_eq!(&value[..3], [0, 0, 1]);
    assert_eq!(&value[11..], text.as_bytes());
    // Cells that a client sends are not believed, and the text is kept as it came.
    let mut sent = vec![1, 0, 2];
    sent.extend_from_slice(&[7; 16]);
    sent.extend_from_slice(text.as_bytes());
    assert_eq!(stored(&sent, &CoveringLimits::default()), Ok(value));

    let spaced = r#" { "coordinates" : [[-122.250629, 37.871022], 300], "type" : "AeroCircle" } "#;
    let value = stored_text(spaced).unwrap();
    let (is_region, cells) = stored_cells(&value).unwrap();
    let cells: Vec<u64> = cells.collect();
    assert!(is_region);
    assert!((1..=12).contains(&cells.len()), "{}", cells.len());
    assert!(
        cells
            .iter()
            .all(|cell| (1..=20).contains(&CellID(*cell).level()))
    );
    assert!(cells.is_sorted());
    assert_eq!(&value[3 + 8 * cells.len()..], spaced.as_bytes());
    assert!(
        Geometry::of_particle(&value)
            .unwrap()
            .contains(&point(-122.25, 37.87))
    );
    for cut in ["", "\0", "\0\0\x01\0", "\0\0\0"] {
        assert_eq!(
            stored(cut.as_bytes(), &CoveringLimits::default()),
            Err(ResultCode::GeoInvalid)
        );
    }
    assert!(stored_cells(b"\0\0\x01\0").is_none());
}

#[test]
fn text_that_means_no_location_is_refused() {
    let refused = [
        "",
        "{",
        "null",
        "[]",
        "1",
        "{}",
        "{\"type\":\"Point\"}",
        "{\"coordinates\":[1,2]}",
        "{\"type\":1,\"coordinates\":[1,2]}",
        "{\"type\":\"Point\",\"coordinates\":[1,2]} x",
        "{\"type\":\"Point\",\"coordinates\":[1,2",
        "{\"type\":\"Point\",\"coordinates\":[1e999,2]}",
        "{\"type\":\"Point\",\"type\":\"Point\",\"coordinates\":[1,2]}",
    ];
    for text in refused {
        assert_eq!(stored_text(text), Err(ResultCode::GeoInvalid), "{text}");
    }
    let square = json!([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]);
    let cases = [
        ("Point", json!([1])),
        ("Point", json!([])),
        ("Point", json!(["1", 2])),
        ("Point", json!([181, 0])),
        ("Point", json!([0, -90.5])),
        ("Point", json!([[1, 2]])),
        ("Point", json!(null)),
        ("point", json!([1, 2])),
        ("Circle", json!([[0, 0], 10])),
        ("LineString", json!([[0, 0], [1, 1]])),
        ("MultiPoint", json!([[0, 0]])),
        ("GeometryCollection", json!([])),
        ("AeroCircle", json!([[0, 0], -1])),
        ("AeroCircle", json!([[0, 0]])),
        ("AeroCircle", json!([0, 0, 10])),
        ("AeroCircle", json!([[0, 0], 10, 20])),
        ("AeroCircle", json!([[0, 0], "10"])),
        ("Polygon", json!([])),
        ("Polygon", json!([[]])),
        ("Polygon", json!([[[0, 0]]])),
        ("Polygon", square.clone()),
        ("Polygon", json!([[[0, 0], [1, 0], [1, 1], [0, 1]]])),
        ("Polygon", json!([[[0, 0], [1, 0], [0, 0]]])),
        ("Polygon", json!([[[0, 0], [0, 0], [0, 0], [0, 0]]])),
        ("Polygon", json!([square, [[0, 0], [1, 1]]])),
        ("Polygon", json!([[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]])),
        ("Polygon", json!([[[0, 0], [180, 0], [90, 1], [0, 0]]])),
        (
            "Polygon",
            json!([square, [[0.5, 0.5], [2, 0.5], [2, 2], [0.5, 0.5]]]),
        ),
        ("MultiPolygon", json!([])),
        ("MultiPolygon", json!([[]])),
        ("MultiPolygon", json!([square])),
    ];
    for (kind, coordinates) in cases {
        let json = json!({"type": kind, "coordinates": coordinates});
        assert_eq!(
            stored_text(&json.to_string()),
            Err(ResultCode::GeoInvalid),
            "{json}"
        );
        let feature = json!({"type": "Feature", "geometry": json});
        assert_eq!(
            stored_text(&feature.to_string()),
            Err(ResultCode::GeoInvalid),
            "{feature}"
        );
    }
    assert_eq!(
        geometry(&json!({"type": "Feature"}))
            .map(|_| ())
            .unwrap_err()
            .result_code(),
        ResultCode::GeoInvalid
    );
    let nested = json!({"type": "Feature", "geometry": {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}});
    assert!(matches!(geometry(&nested), Err(GeoError::Type(_))));
    let deep = "[".repeat(100_000);
    assert_eq!(
        stored_text(&format!("{{\"type\":\"Point\",\"x\":{deep}")),
        Err(ResultCode::GeoInvalid)
    );
}

#[test]
fn features_mean_their_geometry_and_altitudes_nothing() {
    let feature = geometry(&json!({
        "type": "Feature", "properties": {"name": "x", "type": "Polygon"}, "id": [1], "geometry": {"type": "Point", "coordinates": [10, 20, 300]},
    }))
    .unwrap();
    assert_eq!(
        feature.cells(&CoveringLimits::default()),
        point(10.0, 20.0).cells(&CoveringLimits::default())
    );
}

/// The regions, points and answers of two official clients' test suites.
#[test]
fn regions_hold_the_points_that_clients_expect() {
    let region = shape(
        "Polygon",
        json!([[[103, 1.3], [104, 1.3], [104, 1.4], [103, 1.4], [103, 1.3]]]),
    );
    assert!(compare(&region, &point(103.913, 1.308)) && compare(&point(103.913, 1.308), &region));
    assert!(!compare(&region, &point(-122.101, 37.421)));
    assert!(!compare(&region, &region) && !compare(&point(1.0, 1.0), &point(1.0, 1.0)));
    let around = shape(
        "Polygon",
        json!([[
            [102.913, 0.308],
            [102.913, 2.308],
            [104.913, 2.308],
            [104.913, 0.308],
            [102.913, 0.308]
        ]]),
    );
    assert!(around.contains(&point(103.913, 1.308)));
    let circle = shape("AeroCircle", json!([[103.9135, 1.3085], 15000]));
    assert!(circle.contains(&point(103.913, 1.308)) && !circle.contains(&point(-122.101, 37.421)));

    let bay = shape(
        "Polygon",
        json!([[
            [-122.5, 37.0],
            [-121.0, 37.0],
            [-121.0, 38.08],
            [-122.5, 38.08],
            [-122.5, 37.0]
        ]]),
    );
    let points: Vec<_> = (0..10)
        .map(|at| (-122.0 + 0.2 * f64::from(at), 37.5 + 0.2 * f64::from(at)))
        .collect();
    let held: Vec<bool> = points
        .iter()
        .map(|(longitude, latitude)| bay.contains(&point(*longitude, *latitude)))
        .collect();
    assert_eq!(
        held,
        [
            true, true, true, false, false, false, false, false, false, false
        ]
    );
    let circle = shape("AeroCircle", json!([[-122.0, 37.5], 250.2]));
    let held = points
        .iter()
        .filter(|(longitude, latitude)| circle.contains(&point(*longitude, *latitude)))
        .count();
    assert_eq!(held, 1);
}

#[test]
fn polygons_hold_what_is_within_whatever_their_direction() {
    let outline = json!([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]);
    let reversed = json!([[0, 0], [0, 10], [10, 10], [10, 0], [0, 0]]);
    let hole = json!([[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]);
    for outline in [&outline, &reversed] {
        let polygon = shape("Polygon", json!([outline]));
        assert!(polygon.contains(&point(5.0, 5.0)) && polygon.contains(&point(0.001, 0.001)));
        assert!(
            !polygon.contains(&point(-5.0, 5.0))
                && !polygon.contains(&point(5.0, 10.5))
                && !polygon.contains(&point(-175.0, -5.0))
        );
        let polygon = shape("Polygon", json!([outline, hole]));
        assert!(polygon.contains(&point(3.0, 5.0)) && !polygon.contains(&point(5.0, 5.0)));
    }
    let two = shape(
        "MultiPolygon",
        json!([[outline, hole], [[[20, 0], [30, 0], [25, 5], [20, 0]]]]),
    );
    assert!(two.contains(&point(25.0, 1.0)) && two.contains(&point(1.0, 1.0)));
    assert!(!two.contains(&point(15.0, 1.0)) && !two.contains(&point(5.0, 5.0)));
    // Lines are of great circles: between two places of one latitude they run nearer to the pole.
    let band = shape(
        "Polygon",
        json!([[[0, 60], [90, 60], [90, 61], [0, 61], [0, 60]]]),
    );
    assert!(!band.contains(&point(45.0, 60.5)) && band.contains(&point(45.0, 68.0)));
    // Across the date line, and around a pole.
    let pacific = shape(
        "Polygon",
        json!([[[170, -10], [-170, -10], [-170, 10], [170, 10], [170, -10]]]),
    );
    assert!(
        pacific.contains(&point(180.0, 0.0))
            && pacific.contains(&point(-175.0, 5.0))
            && !pacific.contains(&point(0.0, 0.0))
    );
    let arctic = shape(
        "Polygon",
        json!([[[0, 70], [120, 70], [-120, 70], [0, 70]]]),
    );
    assert!(
        arctic.contains(&point(50.0, 89.0))
            && arctic.contains(&point(0.0, 90.0))
            && !arctic.contains(&point(0.0, -90.0))
    );
    // A line between two places far south of the others runs farther south than they are.
    let wide = shape(
        "Polygon",
        json!([[
            [0, -10],
            [170, -10],
            [120, 75],
            [110, 80],
            [90, 85],
            [70, 80],
            [60, 75],
            [0, -10]
        ]]),
    );
    assert!(wide.contains(&point(85.0, -40.0)) && !wide.contains(&point(-95.0, -40.0)));
    assert!(is_covered(
        &wide,
        &point(85.0, -40.0),
        &CoveringLimits::default()
    ));
    // Repeated places are one.
    let repeated = shape(
        "Polygon",
        json!([[[0, 0], [0, 0], [10, 0], [10, 10], [10, 10], [0, 0]]]),
    );
    assert!(repeated.contains(&point(8.0, 4.0)) && !repeated.contains(&point(2.0, 4.0)));
}

/// A ring with spikes has as many pairs of lines near each other as there are.
#[test]
fn polygons_that_take_too_long_are_refused() {
    let round = |corners: usize| json!({"type": "Polygon", "coordinates": [star((20.0, 30.0), &vec![10.0; corners])]});
    assert!(geometry(&round(VERTICES_MAX - 1)).is_ok());
    assert!(
        matches!(geometry(&round(VERTICES_MAX)), Err(GeoError::Vertices { found }) if found == VERTICES_MAX + 1)
    );
    let spiky = |corners: usize| {
        let radii: Vec<f64> = (0..corners)
            .map(|at| if at % 2 == 0 { 10.0 } else { 0.5 })
            .collect();
        json!({"type": "Polygon", "coordinates": [star((20.0, 30.0), &radii)]})
    };
    assert!(geometry(&spiky(1000)).is_ok());
    assert!(matches!(
        geometry(&spiky(VERTICES_MAX - 2)),
        Err(GeoError::Tangle)
    ));
}

#[test]
fn circles_reach_as_far_as_they_say() {
    // A degree of a great circle.
    let degree = EARTH_RADIUS_METERS * PI / 180.0;
    let circle = shape("AeroCircle", json!([[20, 0], degree]));
    assert!(circle.contains(&point(20.999_999, 0.0)) && !circle.contains(&point(21.000_001, 0.0)));
    assert!(
        circle.contains(&point(20.0, -0.999_999)) && !circle.contains(&point(20.0, -1.000_001))
    );
    let all = shape("AeroCircle", json!([[20, 0], 1e9]));
    assert!(all.contains(&point(-160.0, 0.0)));
    let none = shape("AeroCircle", json!([[20, 30], 0]));
    assert!(none.contains(&point(20.0, 30.0)) && !none.contains(&point(20.0, 30.000_001)));
    for region in [&all, &none] {
        assert!((1..=24).contains(&region.cells(&CoveringLimits::default()).len()));
    }
}

#[test]
fn coverings_keep_to_their_limits() {
    let regions = [
        shape("AeroCircle", json!([[13.4, 52.5], 5000])),
        shape("AeroCircle", json!([[13.4, 52.5], 5_000_000])),
        shape("AeroCircle", json!([[0, 90], 19_000_000])),
        shape(
            "Polygon",
            json!([[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]),
        ),
        shape("Polygon", json!([[[0, 0], [120, 0], [-120, 0], [0, 0]]])),
    ];
    for region in regions {
        for (max_cells, min_level, max_level, level_mod) in [
            (1, 0, 30, 1),
            (12, 1, 20, 1),
            (256, 0, 30, 1),
            (12, 4, 16, 3),
            (12, 30, 30, 1),
            (0, 9, 3, 0),
        ] {
            let limits = CoveringLimits {
                max_cells,
                min_level,
                max_level,
                level_mod,
            };
            let cells = region.cells(&limits);
            assert!(
                !cells.is_empty() && cells.is_sorted() && cells.len() < 8192,
                "{limits:?}: {}",
                cells.len()
            );
            assert!(
                cells
                    .iter()
                    .all(|cell| CellID(*cell).is_valid()
                        && CellID(*cell).level() <= max_level.into())
            );
        }
        let sizes: Vec<usize> = [4, 12, 64, 256]
            .map(|max_cells| {
                region
                    .cells(&CoveringLimits {
                        max_cells,
                        min_level: 0,
                        ..CoveringLimits::default()
                    })
                    .len()
            })
            .into();
        assert!(
            sizes[0] <= 6 && sizes[1] <= 12 && sizes[2] <= 64 && sizes[3] <= 256,
            "{sizes:?}"
        );
    }
}

#[test]
fn ranges_do_not_overlap() {
    let face = CellID::from_face(2);
    let children = face.children().map(|cell| cell.0);
    assert_eq!(ranges_within(&children), ranges_within(&[face.0]));
    assert_eq!(
        ranges_within(&[children[3], children[0], face.0]),
        ranges_within(&[face.0])
    );
    assert_eq!(ranges_within(&[children[2], children[0]]).len(), 2);
    assert_eq!(ranges_within(&[]), []);
    for id in [0, u64::MAX, 2] {
        assert_eq!(
            (cells_around(id).count(), ranges_within(&[id])),
            (0, vec![]),
            "{id}"
        );
    }
}

fn star(center: (f64, f64), radii: &[f64]) -> Vec<[f64; 2]> {
    let corners = radii.len() as f64;
    let mut ring: Vec<[f64; 2]> = radii
        .iter()
        .enumerate()
        .map(|(at, radius)| {
            let angle = 2.0 * PI * at as f64 / corners;
            [
                center.0 + radius * angle.cos(),
                center.1 + radius * angle.sin(),
            ]
        })
        .collect();
    ring.push(ring[0]);
    ring
}

/// Whether a point is in a ring of the plane, by the parity of crossings to the right of it.
fn is_in_plane(ring: &[[f64; 2]], [x, y]: [f64; 2]) -> bool {
    ring.windows(2).fold(false, |inside, edge| {
        let ([x0, y0], [x1, y1]) = (edge[0], edge[1]);
        let crosses = (y0 > y) != (y1 > y) && x < x0 + (y - y0) / (y1 - y0) * (x1 - x0);
        inside ^ crosses
    })
}

/// How near a point is to the lines of a ring, in its unit.
fn distance_to(ring: &[[f64; 2]], [x, y]: [f64; 2]) -> f64 {
    ring.windows(2)
        .map(|edge| {
            let ([x0, y0], [x1, y1]) = (edge[0], edge[1]);
            let (dx, dy) = (x1 - x0, y1 - y0);
            let along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
            (x - x0 - along * dx).hypot(y - y0 - along * dy)
        })
        .fold(f64::INFINITY, f64::min)
}

fn haversine(
    (longitude, latitude): (f64, f64),
    (other_longitude, other_latitude): (f64, f64),
) -> f64 {
    let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let cosines = latitude.to_radians().cos() * other_latitude.to_radians().cos();
    let h = half(latitude, other_latitude) + cosines * half(longitude, other_longitude);
    2.0 * EARTH_RADIUS_METERS * h.sqrt().min(1.0).asin()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Near the equator a degree is a degree, and lines are nearly straight.
    #[test]
    fn small_polygons_hold_what_polygons_of_the_plane_hold(
        center in (-179.0_f64..179.0, -0.5_f64..0.5),
        radii in prop::collection::vec(0.02_f64..0.2, 3..40),
        offsets in prop::collection::vec((-0.25_f64..0.25, -0.25_f64..0.25), 20),
    ) {
        let ring = star(center, &radii);
        let polygon = shape("Polygon", json!([ring]));
        let limits = CoveringLimits::default();
        for (dx, dy) in offsets {
            let at = [center.0 + dx, center.1 + dy];
            let place = point(at[0], at[1]);
            if distance_to(&ring, at) > 1e-4 {
                prop_assert_eq!(polygon.contains(&place), is_in_plane(&ring, at), "{:?} in {:?}", at, ring);
            }
            if polygon.contains(&place) {
                prop_assert!(is_covered(&polygon, &place, &limits), "{:?} in {:?}", at, ring);
            }
        }
    }

    #[test]
    fn coverings_hold_every_point_of_large_polygons(
        center in (-180.0_f64..180.0, -60.0_f64..60.0),
        radii in prop::collection::vec(1.0_f64..25.0, 3..12),
        points in prop::collection::vec((-180.0_f64..180.0, -90.0_f64..90.0), 200),
        max_cells in 1_u16..40, level_mod in 1_u8..4,
    ) {
        let limits = CoveringLimits { max_cells, level_mod, ..CoveringLimits::default() };
        let mut ring = star(center, &radii);
        for [longitude, _] in &mut ring {
            *longitude = (*longitude + 540.0).rem_euclid(360.0) - 180.0;
        }
        let json = json!({"type": "Polygon", "coordinates": [ring]});
        if let Ok(polygon) = geometry(&json) {
            let cells = polygon.cells(&limits);
            prop_assert!(!cells.is_empty());
            for (longitude, latitude) in points {
                let place = point(longitude, latitude);
                prop_assert!(!polygon.contains(&place) || is_covered(&polygon, &place, &limits), "{} {}", longitude, latitude);
            }
        }
    }

    #[test]
    fn circles_hold_what_is_no_farther_than_their_radius(
        center in (-180.0_f64..180.0, -90.0_f64..90.0), radius in prop_oneof![1.0_f64..1e5, 1.0_f64..2e7],
        bearing in 0.0_f64..2.0 * PI, share in 0.0_f64..2.0,
        anywhere in (-180.0_f64..180.0, -90.0_f64..90.0),
    ) {
        let circle = shape("AeroCircle", json!([[center.0, center.1], radius]));
        let angle = (radius * share / EARTH_RADIUS_METERS).to_degrees();
        let near = (center.0 + angle * bearing.cos(), center.1 + angle * bearing.sin());
        let near = if near.0.abs() <= 180.0 && near.1.abs() <= 90.0 { near } else { anywhere };
        for place in [near, anywhere] {
            let distance = haversine(center, place);
            let place = point(place.0, place.1);
            if (distance / radius - 1.0).abs() > 1e-6 && (distance - radius).abs() > 0.01 {
                prop_assert_eq!(circle.contains(&place), distance < radius, "{} of {}", distance, radius);
            }
            if circle.contains(&place) {
                prop_assert!(is_covered(&circle, &place, &CoveringLimits::default()));
            }
        }
    }

    #[test]
    fn arbitrary_rings_never_panic(
        rings in prop::collection::vec(prop::collection::vec((-2_i8..=2, -2_i8..=2), 0..8), 0..4), scale in prop_oneof![Just(90.0), Just(45.0), Just(1e-9), Just(1.0)],
        limits in (0_u16..20, 0_u8..40, 0_u8..40, 0_u8..5),
    ) {
        let rings: Vec<Vec<[f64; 2]>> = rings
            .into_iter()
            .map(|ring| {
                let mut ring: Vec<[f64; 2]> = ring.into_iter().map(|(x, y)| [f64::from(x) * scale, f64::from(y) * scale / 2.0]).collect();
                ring.extend(ring.first().copied());
                ring
            })
            .collect();
        if let Ok(polygon) = geometry(&json!({"type": "Polygon", "coordinates": rings})) {
            let (max_cells, min_level, max_level, level_mod) = limits;
            let cells = polygon.cells(&CoveringLimits { max_cells, min_level, max_level, level_mod });
            prop_assert!(cells.len() < 8192, "{}", cells.len());
            let _ = polygon.contains(&point(0.0, 0.0));
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Geometry::parse(text.as_bytes());
        let _ = stored(&bytes, &CoveringLimits::default());
        let _ = stored_cells(&bytes).map(|(_, cells)| cells.count());
    }
}
