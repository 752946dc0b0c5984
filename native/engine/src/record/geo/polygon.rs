//! Polygons on the sphere: which points they hold, and which cells they touch.

use super::GeoError;
use super::json::{Position, Rings};
use s2::cap::Cap;
use s2::cell::Cell;
use s2::edge_crossings::{Crossing, EdgeCrosser, angle_contains_vertex, crossing_sign};
use s2::latlng::LatLng;
use s2::point::{Point, point_area};
use s2::predicates::{Direction, robust_sign};
use s2::r3::vector::Vector;
use s2::region::Region;
use s2::s1::Angle;
use std::f64::consts::{FRAC_PI_2, PI};

/// Vertices of all rings of one value. Each is compared with the cells of a covering, and with edges nearby.
pub const VERTICES_MAX: usize = 8192;

/// Edges that are left out together where none is near.
const EDGES_IN_GROUP: usize = 16;

/// So that what is computed does not leave out what lies on a bound.
const MARGIN: f64 = 1e-14;

/// More than arithmetic errs by when it tells the side of a plane that a place is on.
const SIDE_MARGIN: f64 = 1e-15;

/// Comparisons of edges with each other that a value may take, counted in the cheapest kind; a careful one counts as
/// `CAREFUL_WORK`. What takes more is a tangle that no map has.
const WORK_MAX: usize = 6 << 20;
const CAREFUL_WORK: usize = 32;

/// Rings, of which an odd number holds each point of the polygon: an outline but not its hole, or one of several.
#[derive(Clone, Debug)]
pub struct Polygon {
    rings: Vec<Ring>,
    edges: Vec<Edge>,
    groups: Vec<Group>,
    bound: Cap,
}

/// A closed line through at least three places. It holds the smaller part of the sphere, whatever its direction is.
#[derive(Clone, Debug)]
struct Ring {
    vertices: Vec<Point>,
    holds_origin: bool,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    from: Point,
    to: Point,
    /// Of the plane through both and the centre of the sphere.
    normal: Vector,
    ball: Ball,
}

#[derive(Clone, Debug)]
struct Group {
    ball: Ball,
    edges: std::ops::Range<usize>,
}

/// A part of space that holds something, for a quick look whether two things can touch.
#[derive(Clone, Copy, Debug)]
struct Ball {
    center: Vector,
    radius: f64,
}

impl Polygon {
    /// Fails for rings that are not closed, are no area or cross themselves or another, for more vertices than
    /// [`VERTICES_MAX`], and for lines so entangled that telling whether they cross takes too long.
    pub fn new(polygons: &[Rings]) -> Result<Polygon, GeoError> {
        let all = polygons.iter().flatten();
        let vertices = all.clone().map(Vec::len).sum();
        if vertices > VERTICES_MAX {
            return Err(GeoError::Vertices { found: vertices });
        }
        if polygons.is_empty() || polygons.iter().any(Vec::is_empty) {
            return Err(GeoError::NoArea);
        }
        let rings: Vec<Ring> = all.map(|ring| Ring::new(ring)).collect::<Result<_, _>>()?;
        let edges: Vec<Edge> = rings.iter().flat_map(Ring::edges).collect();
        let groups: Vec<Group> = (0..edges.len())
            .step_by(EDGES_IN_GROUP)
            .map(|first| Group::of(&edges, first..edges.len().min(first + EDGES_IN_GROUP)))
            .collect();
        check_crossings(&edges, &groups)?;
        let bound = bound_of(&rings);
        Ok(Polygon {
            rings,
            edges,
            groups,
            bound,
        })
    }

    pub fn contains(&self, point: &Point) -> bool {
        if !self.bound.contains_point(point) {
            return false;
        }
        self.rings
            .iter()
            .fold(false, |inside, ring| inside ^ ring.contains(point))
    }

    /// Whether a part of the outline lies in a cell.
    fn outline_touches(&self, cell: &Cell) -> bool {
        let corners = cell.vertices();
        let ball = Ball::of_cell(cell, &corners);
        self.groups
            .iter()
            .filter(|group| group.ball.may_touch(&ball))
            .flat_map(|group| &self.edges[group.edges.clone()])
            .filter(|edge| edge.ball.may_touch(&ball) && !edge.has_on_one_side(&corners))
            .any(|edge| {
                cell.contains_point(&edge.from)
                    || (0..4).any(|side| {
                        let next = &corners[(side + 1) % 4];
                        crossing_sign(&edge.from, &edge.to, &corners[side], next)
                            != Crossing::DoNotCross
                    })
            })
    }
}

impl Region for Polygon {
    fn cap_bound(&self) -> Cap {
        self.bound.clone()
    }

    fn contains_cell(&self, cell: &Cell) -> bool {
        !self.outline_touches(cell) && self.contains(&cell.center())
    }

    fn intersects_cell(&self, cell: &Cell) -> bool {
        self.bound.intersects_cell(cell)
            && (self.outline_touches(cell) || self.contains(&cell.center()))
    }
}

impl Ring {
    fn new(positions: &[Position]) -> Result<Ring, GeoError> {
        let [first, .., last] = positions else {
            return Err(GeoError::NotClosed);
        };
        if first != last {
            return Err(GeoError::NotClosed);
        }
        let mut vertices: Vec<Point> = positions.iter().map(point_at).collect();
        vertices.pop();
        vertices.dedup();
        while vertices.len() > 1 && vertices.first() == vertices.last() {
            vertices.pop();
        }
        if vertices.len() < 3 {
            return Err(GeoError::NoArea);
        }
        let ring = Ring {
            vertices,
            holds_origin: false,
        };
        // There is a great circle through two places, but many through opposite ones.
        let opposite = |(a, b): (&Point, &Point)| (a.0 + b.0).norm() < 1e-12;
        if ring.pairs().any(opposite) {
            return Err(GeoError::NoArea);
        }
        Ok(ring.oriented())
    }

    fn pairs(&self) -> impl Iterator<Item = (&Point, &Point)> {
        let next = self.vertices.iter().cycle().skip(1);
        self.vertices.iter().zip(next)
    }

    fn edges(&self) -> impl Iterator<Item = Edge> {
        self.pairs().map(|(from, to)| Edge {
            from: *from,
            to: *to,
            normal: from.0.cross(&to.0),
            ball: Ball {
                center: (from.0 + to.0) * 0.5,
                radius: from.0.distance(&to.0) * 0.5,
            },
        })
    }

    /// Finds out whether the ring holds the origin: first for what lies on its left, which an angle at a vertex shows, then
    /// for the smaller part.
    fn oriented(mut self) -> Ring {
        let [a, b, c, ..] = self.vertices[..] else {
            unreachable!("a ring has three vertices")
        };
        let holds_vertex = a != c && angle_contains_vertex(&a, &b, &c);
        self.holds_origin = holds_vertex != self.contains(&b);
        if self.area_on_left() > 2.0 * PI {
            self.holds_origin = !self.holds_origin;
        }
        self
    }

    /// Of the unit sphere.
    fn area_on_left(&self) -> f64 {
        let first = &self.vertices[0];
        let area: f64 = self.vertices[1..]
            .windows(2)
            .map(|pair| {
                let area = point_area(first, &pair[0], &pair[1]);
                match robust_sign(first, &pair[0], &pair[1]) {
                    Direction::CounterClockwise => area,
                    Direction::Clockwise => -area,
                    Direction::Indeterminate => 0.0,
                }
            })
            .sum();
        if area < 0.0 { area + 4.0 * PI } else { area }
    }

    /// By the parity of crossings on the way from the origin.
    fn contains(&self, point: &Point) -> bool {
        let mut crosser = EdgeCrosser::new_with_c(&Point::origin(), point, &self.vertices[0]);
        self.pairs().fold(self.holds_origin, |inside, (_, to)| {
            inside ^ crosser.chain_edge_or_vertex_crossing(to)
        })
    }
}

impl Edge {
    /// Whether places, and with them all between them, are certainly on one side of the edge. False says nothing.
    fn has_on_one_side(&self, places: &[Point]) -> bool {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for place in places {
            let side = self.normal.dot(&place.0);
            least = least.min(side);
            most = most.max(side);
        }
        least > SIDE_MARGIN || most < -SIDE_MARGIN
    }

    fn crosses(&self, other: &Edge) -> bool {
        crossing_sign(&self.from, &self.to, &other.from, &other.to) == Crossing::Cross
    }
}

impl Group {
    fn of(edges: &[Edge], range: std::ops::Range<usize>) -> Group {
        let members = &edges[range.clone()];
        let sum = members
            .iter()
            .fold(Vector::new(0.0, 0.0, 0.0), |sum, edge| {
                sum + edge.ball.center
            });
        let center = sum * (1.0 / members.len() as f64);
        let radius = members
            .iter()
            .map(|edge| edge.ball.center.distance(&center) + edge.ball.radius)
            .fold(0.0, f64::max);
        Group {
            ball: Ball { center, radius },
            edges: range,
        }
    }
}

impl Ball {
    fn of_cell(cell: &Cell, corners: &[Point; 4]) -> Ball {
        let center = cell.center().0;
        let radius = corners
            .iter()
            .map(|corner| corner.0.distance(&center))
            .fold(0.0, f64::max);
        Ball { center, radius }
    }

    fn may_touch(&self, other: &Ball) -> bool {
        let reach = self.radius + other.radius + MARGIN;
        (self.center - other.center).norm2() <= reach * reach
    }
}

pub fn point_at(position: &Position) -> Point {
    Point::from(LatLng::from_degrees(position.latitude, position.longitude))
}

/// A cap that holds all rings, and with them all that is within. The whole sphere if they do not fit half of it.
fn bound_of(rings: &[Ring]) -> Cap {
    let all = rings.iter().flat_map(|ring| &ring.vertices);
    let sum = all
        .clone()
        .fold(Vector::new(0.0, 0.0, 0.0), |sum, point| sum + point.0);
    if sum.norm() < 1e-6 {
        return Cap::full();
    }
    let center = Point(sum.normalize());
    let radius = all
        .map(|point| center.0.angle(&point.0).rad())
        .fold(0.0, f64::max)
        + MARGIN;
    if radius < FRAC_PI_2 {
        Cap::from_center_angle(&center, &Angle::from(s2::s1::Rad(radius)))
    } else {
        Cap::full()
    }
}

/// No two edges may cross. Only those of groups that are near each other are compared.
fn check_crossings(edges: &[Edge], groups: &[Group]) -> Result<(), GeoError> {
    let mut work = groups.len() * groups.len();
    for (at, group) in groups.iter().enumerate() {
        for other in groups[at..]
            .iter()
            .filter(|other| group.ball.may_touch(&other.ball))
        {
            for first in group.edges.clone() {
                let edge = &edges[first];
                let others =
                    &edges[other.edges.start.max(first + 1).min(other.edges.end)..other.edges.end];
                work += others.len();
                for other in others.iter().filter(|other| {
                    edge.ball.may_touch(&other.ball)
                        && !edge.has_on_one_side(&[other.from, other.to])
                        && !other.has_on_one_side(&[edge.from, edge.to])
                }) {
                    work += CAREFUL_WORK;
                    if edge.crosses(other) {
                        return Err(GeoError::Crossing);
                    }
                }
                if work > WORK_MAX {
                    return Err(GeoError::Tangle);
                }
            }
        }
    }
    Ok(())
}
