//! Where Fly's regions are, and how long light needs between them.

use std::time::Duration;

/// One of Fly's regions (<https://fly.io/docs/reference/regions/>).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Fly's code for it, an airport's.
    pub code: &'static str,
    /// The city, for people.
    pub city: &'static str,
    /// Degrees north of the equator.
    pub latitude: f64,
    /// Degrees east of Greenwich.
    pub longitude: f64,
    /// Fly's names for the wider areas that it belongs to, as `fly-replay: region=` takes them.
    pub areas: &'static [&'static str],
}

/// Every region of Fly's list.
pub const REGIONS: &[Region] = &[
    region("ams", "Amsterdam", 52.37, 4.90, EUROPE),
    region("arn", "Stockholm", 59.33, 18.07, EUROPE),
    region("bom", "Mumbai", 19.08, 72.88, ASIA_PACIFIC),
    region("cdg", "Paris", 48.86, 2.35, EUROPE),
    region("dfw", "Dallas", 32.78, -96.80, UNITED_STATES),
    region("ewr", "Secaucus", 40.79, -74.06, UNITED_STATES),
    region("fra", "Frankfurt", 50.11, 8.68, EUROPE),
    region("gru", "São Paulo", -23.55, -46.63, SOUTH_AMERICA),
    region("iad", "Ashburn", 39.04, -77.49, UNITED_STATES),
    region("jnb", "Johannesburg", -26.20, 28.05, &[]),
    region("lax", "Los Angeles", 34.05, -118.24, UNITED_STATES),
    region("lhr", "London", 51.51, -0.13, EUROPE),
    region("nrt", "Tokyo", 35.68, 139.69, ASIA_PACIFIC),
    region("ord", "Chicago", 41.88, -87.63, UNITED_STATES),
    region("sin", "Singapore", 1.35, 103.82, ASIA_PACIFIC),
    region("sjc", "San Jose", 37.34, -121.89, UNITED_STATES),
    region("syd", "Sydney", -33.87, 151.21, ASIA_PACIFIC),
    region("yyz", "Toronto", 43.65, -79.38, NORTH_AMERICA),
];

const ASIA_PACIFIC: &[&str] = &["apac"];
const EUROPE: &[&str] = &["eu"];
const NORTH_AMERICA: &[&str] = &["na"];
const SOUTH_AMERICA: &[&str] = &["sa"];
const UNITED_STATES: &[&str] = &["us", "usa", "na"];

/// The way there and back between two machines in one region.
const WITHIN_REGION: Duration = Duration::from_millis(1);

/// Two thirds of light's speed in a vacuum: glass has a refractive index of about 1.5.
const FIBRE_KM_PER_SECOND: f64 = 200_000.0;

/// Cables follow coasts, roads and railways. Between far regions, measured round trips are commonly 1.3 to 2
/// times what the great circle alone would take.
const DETOUR: f64 = 1.5;

const EARTH_RADIUS_KM: f64 = 6371.0;

/// How far a region counts that the table does not have: the other side of the earth, so that it comes last.
const ANTIPODES_KM: f64 = 20_015.0;

/// The round trip between two regions, given by their codes; 1 ms within a region.
#[must_use]
pub fn round_trip(a: &str, b: &str) -> Duration {
    if a == b {
        return WITHIN_REGION;
    }
    let distance = match (find(a), find(b)) {
        (Some(a), Some(b)) => great_circle_km(a, b),
        _ => ANTIPODES_KM,
    };
    WITHIN_REGION + Duration::from_secs_f64(2.0 * distance * DETOUR / FIBRE_KM_PER_SECOND)
}

/// The region with this code.
#[must_use]
pub fn find(code: &str) -> Option<&'static Region> {
    REGIONS.iter().find(|region| region.code == code)
}

/// Whether `region` is what `name` means: its own code, an area around it (`eu`, `us`) or `any`.
#[must_use]
pub fn is_within(region: &str, name: &str) -> bool {
    name == region || name == "any" || find(region).is_some_and(|region| region.areas.contains(&name))
}

/// The haversine formula, on a sphere.
fn great_circle_km(a: &Region, b: &Region) -> f64 {
    let (latitude_a, latitude_b) = (a.latitude.to_radians(), b.latitude.to_radians());
    let north = (latitude_b - latitude_a) / 2.0;
    let east = (b.longitude - a.longitude).to_radians() / 2.0;
    let haversine = north.sin().powi(2) + latitude_a.cos() * latitude_b.cos() * east.sin().powi(2);
    2.0 * EARTH_RADIUS_KM * haversine.sqrt().asin()
}

const fn region(
    code: &'static str,
    city: &'static str,
    latitude: f64,
    longitude: f64,
    areas: &'static [&'static str],
) -> Region {
    Region { code, city, latitude, longitude, areas }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_as_long_as_the_way_there() {
        for a in REGIONS {
            for b in REGIONS {
                let difference = round_trip(a.code, b.code).abs_diff(round_trip(b.code, a.code));
                assert!(difference < Duration::from_micros(1), "{} and {}", a.code, b.code);
            }
        }
    }

    #[test]
    fn a_round_trip_across_the_pacific_takes_what_people_measure() {
        let pacific = round_trip("sjc", "syd");
        assert!((120..200).contains(&pacific.as_millis()), "{pacific:?}");
    }

    #[test]
    fn a_region_is_close_to_itself_and_an_unknown_one_is_the_farthest() {
        assert!(round_trip("ams", "ams") < Duration::from_millis(2));
        let farthest_known = REGIONS.iter().map(|region| round_trip("ams", region.code)).max();
        assert!(Some(round_trip("ams", "xxx")) > farthest_known);
    }

    #[test]
    fn an_area_holds_its_regions() {
        assert!(is_within("sjc", "sjc") && is_within("sjc", "us") && is_within("sjc", "na"));
        assert!(is_within("xxx", "any"));
        assert!(!is_within("sjc", "eu") && !is_within("yyz", "us"));
    }
}
