//! A scene's place on a map: a GeoJSON geometry (RFC 7946). Positions are longitude and latitude.

use citybrain_shared::case::is_on_earth;
use serde_json::Value;

/// Rings are closed and have at least four positions, a line has two. A collection in another is none: what draws it
/// need not read that.
///
/// # Errors
/// What is wrong, in words.
pub fn check(geometry: &Value) -> Result<(), String> {
    let is_collection = |g: &Value| g["type"] == "GeometryCollection";
    if is_collection(geometry) {
        let Some(all) = geometry["geometries"].as_array() else {
            return Err("a collection has `geometries`".into());
        };
        if all.iter().any(is_collection) {
            return Err("a collection within a collection".into());
        }
        return all.iter().try_for_each(check);
    }
    let (depth, least) = match geometry["type"].as_str() {
        Some("Point") => (0, Least::Any),
        Some("MultiPoint") => (1, Least::Any),
        Some("LineString") => (1, Least::Line),
        Some("MultiLineString") => (2, Least::Line),
        Some("Polygon") => (2, Least::Ring),
        Some("MultiPolygon") => (3, Least::Ring),
        other => return Err(format!("`{}` is no type of geometry", other.unwrap_or(""))),
    };
    positions(&geometry["coordinates"], depth, least)
}

/// What a list of positions must be at least.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Least {
    Any,
    Line,
    Ring,
}

fn positions(value: &Value, depth: usize, least: Least) -> Result<(), String> {
    let Some(all) = value.as_array() else { return Err("its coordinates are not nested as its type says".into()) };
    if depth == 0 {
        let number = |i: usize| all.get(i).and_then(Value::as_f64);
        return match (number(0), number(1)) {
            (Some(lon), Some(lat)) if is_on_earth(lat, lon) => Ok(()),
            (Some(_), Some(_)) => Err(format!("{value} is no longitude and latitude")),
            _ => Err("its coordinates are not nested as its type says".into()),
        };
    }
    if depth == 1 && least == Least::Ring && (all.len() < 4 || all.first() != all.last()) {
        return Err("a ring has at least four positions, and the last is the first".into());
    }
    if depth == 1 && least == Least::Line && all.len() < 2 {
        return Err("a line has at least two positions".into());
    }
    all.iter().try_for_each(|v| positions(v, depth - 1, least))
}

/// With the rings of polygons as RFC 7946 has them: the outer one counterclockwise, holes clockwise. People draw them
/// either way, and what follows the direction would fill the rest of the world.
pub fn wind(geometry: &mut Value) {
    if let Some(all) = geometry.get_mut("geometries").and_then(Value::as_array_mut) {
        return all.iter_mut().for_each(wind);
    }
    let kind = geometry["type"].as_str().unwrap_or_default().to_owned();
    let polygons = match (kind.as_str(), geometry.get_mut("coordinates")) {
        ("Polygon", Some(one)) => std::slice::from_mut(one),
        ("MultiPolygon", Some(Value::Array(all))) => all,
        _ => return,
    };
    for polygon in polygons {
        for (i, ring) in polygon.as_array_mut().into_iter().flatten().filter_map(Value::as_array_mut).enumerate() {
            let area = twice_area(ring);
            if (i == 0 && area < 0.0) || (i > 0 && area > 0.0) {
                ring.reverse();
            }
        }
    }
}

/// Of a closed ring, with a sign: above 0 it goes counterclockwise.
fn twice_area(ring: &[Value]) -> f64 {
    let at = |position: &Value, i: usize| position[i].as_f64().unwrap_or_default();
    ring.windows(2).map(|two| at(&two[0], 0) * at(&two[1], 1) - at(&two[1], 0) * at(&two[0], 1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_two_positions_and_points_may_be_one() {
        let of = |kind: &str, coordinates: Value| check(&json!({"type": kind, "coordinates": coordinates}));
        let few = Err("a line has at least two positions".to_owned());
        assert_eq!(of("LineString", json!([[1, 1]])), few);
        assert_eq!(of("MultiLineString", json!([[[1, 1], [2, 2]], []])), few);
        assert_eq!(of("LineString", json!([[1, 1], [2, 2]])), Ok(()));
        assert_eq!(of("MultiPoint", json!([[1, 1]])), Ok(()));
    }

    #[test]
    fn outer_rings_go_counterclockwise_and_holes_clockwise_however_they_were_drawn() {
        // Far from 0,0, as a city is.
        let outer = json!([[103.8, 30.6], [103.9, 30.6], [103.9, 30.7], [103.8, 30.6]]);
        let hole = json!([[103.86, 30.62], [103.88, 30.64], [103.88, 30.62], [103.86, 30.62]]);
        let turned = |ring: &Value| Value::from(ring.as_array().unwrap().iter().rev().cloned().collect::<Vec<_>>());
        let polygon = |outer: &Value, hole: &Value| json!({"type": "Polygon", "coordinates": [outer, hole]});
        let (right, wrong) = (polygon(&outer, &hole), polygon(&turned(&outer), &turned(&hole)));
        let several = |one: &Value| json!({"type": "MultiPolygon", "coordinates": [one["coordinates"]]});
        let within = |one: &Value| json!({"type": "GeometryCollection", "geometries": [one, several(one)]});
        for (given, wanted) in [(&wrong, &right), (&right, &right)] {
            for (mut given, wanted) in [(given.clone(), wanted.clone()), (within(given), within(wanted))] {
                wind(&mut given);
                assert_eq!(given, wanted);
            }
        }
        // What is not an area has no direction.
        let mut line = json!({"type": "LineString", "coordinates": turned(&outer)});
        let before = line.clone();
        wind(&mut line);
        assert_eq!(line, before);
    }
}
