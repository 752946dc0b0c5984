//! The GeoJSON (RFC 7946) of locations, and the circle that the protocol adds to it.

use super::GeoError;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Degrees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Position {
    pub longitude: f64,
    pub latitude: f64,
}

/// The first ring of a polygon is its outline, the others are holes.
pub type Rings = Vec<Vec<Position>>;

#[derive(Clone, PartialEq, Debug)]
pub enum Text {
    Point(Position),
    Polygons(Vec<Rings>),
    Circle {
        center: Position,
        radius_meters: f64,
    },
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Feature<T> {
    geometry: T,
}

#[derive(Deserialize)]
struct Geometry<T> {
    coordinates: T,
}

/// A feature's properties, and whatever else stands beside a geometry, are not looked at.
pub fn parse(text: &[u8]) -> Result<Text, GeoError> {
    let Head { kind } = from_text(text)?;
    let (kind, is_feature) = match &*kind {
        "Feature" => (from_text::<Feature<Head<'_>>>(text)?.geometry.kind, true),
        _ => (kind, false),
    };
    match &*kind {
        "Point" => Ok(Text::Point(coordinates(text, is_feature)?)),
        "Polygon" => Ok(Text::Polygons(vec![coordinates(text, is_feature)?])),
        "MultiPolygon" => Ok(Text::Polygons(coordinates(text, is_feature)?)),
        "AeroCircle" => {
            let (center, radius_meters) = coordinates(text, is_feature)?;
            Ok(Text::Circle {
                center,
                radius_meters,
            })
        }
        _ => Err(GeoError::Type(kind.into_owned())),
    }
}

fn coordinates<T: DeserializeOwned>(text: &[u8], is_feature: bool) -> Result<T, GeoError> {
    if is_feature {
        let feature: Feature<Geometry<T>> = from_text(text)?;
        Ok(feature.geometry.coordinates)
    } else {
        from_text::<Geometry<T>>(text).map(|geometry| geometry.coordinates)
    }
}

fn from_text<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, GeoError> {
    serde_json::from_slice(text).map_err(|error| GeoError::Json(error.to_string()))
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        deserializer.deserialize_seq(PositionVisitor)
    }
}

struct PositionVisitor;

impl<'de> Visitor<'de> for PositionVisitor {
    type Value = Position;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a longitude and a latitude")
    }

    /// What follows, an altitude most often, has no meaning here.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Position, A::Error> {
        let longitude: Option<f64> = numbers.next_element()?;
        let latitude: Option<f64> = numbers.next_element()?;
        while numbers.next_element::<IgnoredAny>()?.is_some() {}
        let (Some(longitude), Some(latitude)) = (longitude, latitude) else {
            return Err(A::Error::custom("a position of less than two numbers"));
        };
        if longitude.abs() <= 180.0 && latitude.abs() <= 90.0 {
            Ok(Position {
                longitude,
                latitude,
            })
        } else {
            Err(A::Error::custom("a position that is not on Earth"))
        }
    }
}
