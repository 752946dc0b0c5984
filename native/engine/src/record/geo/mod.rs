//! Locations (section 5.1): what their GeoJSON means on the sphere, the S2 cells that are stored with them, and which
//! region a point is in.
//!
//! ```text
//! value = u8 flags (bit 0: region), u16 count of cells, count * u64 cell id, GeoJSON text
//! ```
//!
//! A point has one cell, the smallest that there is. A region has a few that cover it, so that an index of cells finds
//! candidates, of which [`Geometry::contains`] says which are right.

mod json;
mod polygon;
#[cfg(test)]
mod tests;

use json::Text;
use perigee_wire::ResultCode;
use perigee_wire::particle::geojson_text;
use polygon::{Polygon, point_at};
use s2::cap::Cap;
use s2::cellid::CellID;
use s2::point::Point;
use s2::region::{Region as _, RegionCoverer};
use s2::s1::{Angle, Rad};
use std::f64::consts::PI;

pub use polygon::VERTICES_MAX;

/// By which the radius of a circle becomes an angle.
pub const EARTH_RADIUS_METERS: f64 = 6_371_000.0;

const FLAG_REGION: u8 = 1;

/// The level of the smallest cells, about a square centimetre.
const LEAF_LEVEL: u8 = 30;

/// Cells that the least level may ask for beyond `max_cells`; a region that needs more of them is covered by larger ones.
const CELLS_AT_MIN_LEVEL_MAX: f64 = 1024.0;

/// Why a text is no location that we handle.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GeoError {
    #[error("location is no GeoJSON: {0}")]
    Json(String),
    #[error(
        "location of the type {0:?}, expected Point, Polygon, MultiPolygon, AeroCircle or a Feature of these"
    )]
    Type(String),
    #[error("circle with a radius that is not a length")]
    Radius,
    #[error("polygon has a ring whose last position is not its first one")]
    NotClosed,
    #[error("polygon has a ring without an area")]
    NoArea,
    #[error("polygon has lines that cross")]
    Crossing,
    #[error("polygon has too many lines close to each other")]
    Tangle,
    #[error("polygon of {found} vertices, at most {VERTICES_MAX} are handled")]
    Vertices { found: usize },
}

impl GeoError {
    /// What the client is told.
    pub fn result_code(&self) -> ResultCode {
        ResultCode::GeoInvalid
    }
}

/// How closely regions are covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoveringLimits {
    /// Up to which smaller cells are taken, 1 to 256. A region across faces of the cube may need a few more.
    pub max_cells: u16,
    /// Of the largest cells, 0 to 30.
    pub min_level: u8,
    /// Of the smallest cells, `min_level` to 30.
    pub max_level: u8,
    /// Levels between those that are used, 1 to 3.
    pub level_mod: u8,
}

impl Default for CoveringLimits {
    fn default() -> CoveringLimits {
        CoveringLimits {
            max_cells: 12,
            min_level: 1,
            max_level: 20,
            level_mod: 1,
        }
    }
}

/// What a location's text means.
#[derive(Clone, Debug)]
pub struct Geometry(Shape);

#[derive(Clone, Debug)]
enum Shape {
    Point(Point),
    Polygon(Polygon),
    Circle(Cap),
}

impl Geometry {
    /// Reads GeoJSON text: a Point, Polygon, MultiPolygon or AeroCircle (centre and radius in metres), or a Feature of one of
    /// them. Positions are degrees, longitude first. A ring of a polygon holds the smaller part of the sphere.
    pub fn parse(text: &[u8]) -> Result<Geometry, GeoError> {
        Ok(Geometry(match json::parse(text)? {
            Text::Point(position) => Shape::Point(point_at(&position)),
            Text::Polygons(polygons) => Shape::Polygon(Polygon::new(&polygons)?),
            Text::Circle {
                center,
                radius_meters,
            } => {
                if !radius_meters.is_finite() || radius_meters < 0.0 {
                    return Err(GeoError::Radius);
                }
                let angle = (radius_meters / EARTH_RADIUS_METERS).min(PI);
                let angle = Angle::from(Rad(angle));
                Shape::Circle(Cap::from_center_angle(&point_at(&center), &angle))
            }
        }))
    }

    /// Of a bin's value; its cells are not looked at.
    pub fn of_particle(value: &[u8]) -> Result<Geometry, ResultCode> {
        let text = geojson_text(value).map_err(|error| error.result_code())?;
        Geometry::parse(text).map_err(|error| error.result_code())
    }

    pub fn is_region(&self) -> bool {
        !matches!(self.0, Shape::Point(_))
    }

    /// The cell of a point, or cells that cover a region, in ascending order.
    pub fn cells(&self, limits: &CoveringLimits) -> Vec<u64> {
        let cells = match &self.0 {
            Shape::Point(point) => return vec![CellID::from(point).0],
            Shape::Polygon(polygon) => coverer(limits, &polygon.cap_bound()).covering(polygon),
            Shape::Circle(cap) => coverer(limits, cap).covering(cap),
        };
        cells.0.into_iter().map(|cell| cell.0).collect()
    }

    /// Whether this is a region and the other one a point in it. Exact up to the precision of numbers; a point on the
    /// outline may be in or out.
    pub fn contains(&self, other: &Geometry) -> bool {
        match (&self.0, &other.0) {
            (Shape::Polygon(polygon), Shape::Point(point)) => polygon.contains(point),
            (Shape::Circle(cap), Shape::Point(point)) => cap.contains_point(point),
            _ => false,
        }
    }
}

/// Whether one of two locations is a region and the other one a point in it, whichever is which.
pub fn compare(one: &Geometry, other: &Geometry) -> bool {
    one.contains(other) || other.contains(one)
}

/// A bin's value as it is stored: the text that a client sent, with cells of our own. GEO_INVALID if it means nothing.
pub fn stored(value: &[u8], limits: &CoveringLimits) -> Result<Vec<u8>, ResultCode> {
    let text = geojson_text(value).map_err(|error| error.result_code())?;
    let geometry = Geometry::parse(text).map_err(|error| error.result_code())?;
    let cells = geometry.cells(limits);
    let count = u16::try_from(cells.len()).map_err(|_| ResultCode::GeoInvalid)?;
    let mut stored = Vec::with_capacity(3 + 8 * cells.len() + text.len());
    stored.push(if geometry.is_region() { FLAG_REGION } else { 0 });
    stored.extend_from_slice(&count.to_be_bytes());
    for cell in cells {
        stored.extend_from_slice(&cell.to_be_bytes());
    }
    stored.extend_from_slice(text);
    Ok(stored)
}

/// The cells that are stored with a location, and whether they are those of a region. None if the value is cut short.
pub fn stored_cells(value: &[u8]) -> Option<(bool, impl Iterator<Item = u64>)> {
    let (header, rest) = value.split_first_chunk::<3>()?;
    let count = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let cells = rest.get(..8 * count)?.as_chunks::<8>().0;
    let is_region = header[0] & FLAG_REGION != 0;
    Some((
        is_region,
        cells.iter().map(|cell| u64::from_be_bytes(*cell)),
    ))
}

/// The cell of a point. None of a text that says that it is a region, which may be none after all.
pub fn point_cell(text: &[u8]) -> Result<Option<u64>, GeoError> {
    Ok(match json::parse(text)? {
        Text::Point(position) => Some(CellID::from(point_at(&position)).0),
        Text::Polygons(_) | Text::Circle { .. } => None,
    })
}

/// Ids from the first to the last, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellRange {
    pub first: u64,
    pub last: u64,
}

/// The ids of everything within cells: those of points that may be in a region with this covering. In ascending order,
/// without overlap. Ids that are no cells are left out.
pub fn ranges_within(cells: &[u64]) -> Vec<CellRange> {
    let mut ranges: Vec<CellRange> = cells
        .iter()
        .map(|cell| CellID(*cell))
        .filter(CellID::is_valid)
        .map(|cell| CellRange {
            first: cell.range_min().0,
            last: cell.range_max().0,
        })
        .collect();
    ranges.sort_by_key(|range| range.first);
    ranges.dedup_by(|next, range| {
        // Ids of leaves are odd.
        let joined = next.first <= range.last.saturating_add(2);
        if joined {
            range.last = range.last.max(next.last);
        }
        joined
    });
    ranges
}

/// The ids of cells that hold a cell, from the largest to itself: of those in coverings of regions that may contain it.
/// None of an id that is no cell.
pub fn cells_around(cell: u64) -> impl Iterator<Item = u64> {
    let cell = CellID(cell);
    let levels = if cell.is_valid() { cell.level() + 1 } else { 0 };
    (0..levels).map(move |level| cell.parent(level).0)
}

/// What covers a region within a bound. Levels that would take too many cells are not begun with.
fn coverer(limits: &CoveringLimits, bound: &Cap) -> RegionCoverer {
    let max_level = limits.max_level.min(LEAF_LEVEL);
    let mut min_level = limits.min_level.min(max_level);
    let cells_at = |level: u8| bound.area() / (4.0 * PI) * 6.0 * 4_f64.powi(level.into());
    while min_level > 0 && cells_at(min_level) > CELLS_AT_MIN_LEVEL_MAX {
        min_level -= 1;
    }
    RegionCoverer {
        min_level,
        max_level,
        level_mod: limits.level_mod.clamp(1, 3),
        max_cells: limits.max_cells.max(1).into(),
    }
}
