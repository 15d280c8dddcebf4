//! Fly's regions, for people and for maps (<https://fly.io/docs/reference/regions/>).

use super::Region;

/// Where a region is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Fly's code for the region, an airport's.
    pub code: &'static str,
    /// The city's name.
    pub city: &'static str,
    /// Degrees north of the equator.
    pub latitude: f64,
    /// Degrees east of Greenwich.
    pub longitude: f64,
}

/// All regions of Fly's list.
pub const PLACES: &[Place] = &[
    place("ams", "Amsterdam", 52.37, 4.90),
    place("arn", "Stockholm", 59.33, 18.07),
    place("bom", "Mumbai", 19.08, 72.88),
    place("cdg", "Paris", 48.86, 2.35),
    place("dfw", "Dallas", 32.78, -96.80),
    place("ewr", "Secaucus", 40.79, -74.06),
    place("fra", "Frankfurt", 50.11, 8.68),
    place("gru", "São Paulo", -23.55, -46.63),
    place("iad", "Ashburn", 39.04, -77.49),
    place("jnb", "Johannesburg", -26.20, 28.05),
    place("lax", "Los Angeles", 34.05, -118.24),
    place("lhr", "London", 51.51, -0.13),
    place("nrt", "Tokyo", 35.68, 139.69),
    place("ord", "Chicago", 41.88, -87.63),
    place("sin", "Singapore", 1.35, 103.82),
    place("sjc", "San Jose", 37.34, -121.89),
    place("syd", "Sydney", -33.87, 151.21),
    place("yyz", "Toronto", 43.65, -79.38),
];

impl Region {
    /// Where it is. `None`: Fly has added it since, or it is none of Fly's.
    #[must_use]
    pub fn place(&self) -> Option<&'static Place> {
        PLACES.iter().find(|place| place.code == self.to_string())
    }
}

const fn place(code: &'static str, city: &'static str, latitude: f64, longitude: f64) -> Place {
    Place { code, city, latitude, longitude }
}
