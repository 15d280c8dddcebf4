//! The world with the instances on it. The land itself is `static/land.svg`, in the same projection.

use std::{
    collections::{BTreeMap, BTreeSet},
    f64::consts::PI,
    fmt::Write as _,
};

use super::survey::{State, Survey};
use crate::instance::{Place, Region};

/// The map's size, in units of its own.
pub(super) const WIDTH: f64 = 1000.0;
pub(super) const HEIGHT: f64 = 470.0;
/// Where the map ends, in degrees north.
const TOP: f64 = 80.0;
/// Points on a way: enough for a smooth curve.
const STEPS: u32 = 40;

/// The map's drawing.
pub(super) struct Map {
    /// From the primary to each replica that follows it, as SVG's path data.
    pub(super) ways: Vec<String>,
    /// The same markers for screens of several widths: text keeps its size where the map does not.
    pub(super) scales: Vec<Scale>,
    /// Which kinds of markers there are.
    pub(super) kinds: BTreeSet<Kind>,
}

pub(super) struct Scale {
    pub(super) name: &'static str,
    /// Of the text, in the map's units.
    pub(super) size: f64,
    pub(super) dots: Vec<Dot>,
    pub(super) labels: Vec<Label>,
}

/// An instance.
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) radius: f64,
    pub(super) kind: Kind,
}

/// In the order in which a region's dots stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Primary,
    Replica,
    Asked,
    Silent,
}

impl Kind {
    /// In the legend, and in `status.css`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Asked => "asked",
            Self::Silent => "silent",
        }
    }

    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Asked => "was asked",
            Self::Silent => "does not answer",
        }
    }
}

impl Dot {
    /// A cross in its place.
    pub(super) fn cross(&self) -> String {
        let Self { x, y, radius, .. } = self;
        let (left, right, top, bottom) = (x - radius, x + radius, y - radius, y + radius);
        format!("M{left:.1} {top:.1}L{right:.1} {bottom:.1}M{left:.1} {bottom:.1}L{right:.1} {top:.1}")
    }
}

/// A region's name.
pub(super) struct Label {
    pub(super) x: f64,
    pub(super) y: f64,
    /// SVG's `text-anchor`.
    pub(super) anchor: &'static str,
    pub(super) text: String,
}

/// Names of the screens' widths, as in `status.css`, and the text's size on each.
const SCALES: [(&str, f64); 4] = [("narrow", 34.0), ("medium", 20.0), ("wide", 12.0), ("huge", 8.0)];
/// The most dots of one region.
const MOST: usize = 4;

impl Map {
    pub(super) fn draw(survey: &Survey) -> Self {
        let mut regions: BTreeMap<&Region, Vec<Kind>> = BTreeMap::new();
        for sighting in survey.sightings.values() {
            regions.entry(&sighting.region).or_default().push(match sighting.state {
                _ if sighting.is_wrong() => Kind::Silent,
                _ if sighting.writes() => Kind::Primary,
                State::Asked => Kind::Asked,
                _ => Kind::Replica,
            });
        }
        let mut places: Vec<(&Place, Vec<Kind>)> =
            regions.into_iter().filter_map(|(region, kinds)| Some((region.place()?, kinds))).collect();
        for (_, kinds) in &mut places {
            kinds.sort_unstable();
        }
        let kinds = places.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
        let scales = SCALES.map(|(name, size)| scale(name, size, &places)).into();
        Self { ways: ways(survey), scales, kinds }
    }
}

fn ways(survey: &Survey) -> Vec<String> {
    let Some((primary, from)) = survey.primary() else { return Vec::new() };
    let mut to: Vec<&Region> = survey
        .followers_of(primary)
        .map(|sighting| &sighting.region)
        .filter(|region| **region != from.region)
        .collect();
    to.sort_unstable();
    to.dedup();
    let Some(from) = from.region.place() else { return Vec::new() };
    to.into_iter().filter_map(|region| Some(way(from, region.place()?))).collect()
}

fn scale(name: &'static str, size: f64, places: &[(&Place, Vec<Kind>)]) -> Scale {
    let radius = size * 0.38;
    let (mut dots, mut boxes) = (Vec::new(), Vec::new());
    for (place, kinds) in places {
        let (x, y) = project(place.latitude, place.longitude);
        let shown = &kinds[..kinds.len().min(MOST)];
        let mut at = x;
        for &kind in shown {
            dots.push(Dot { x: tenth(at), y: tenth(y), radius: tenth(radius), kind });
            at += radius * 2.5;
        }
        boxes.push(Area { left: x - radius, right: at - radius * 1.5, top: y - radius, bottom: y + radius });
    }
    let mut labels = Vec::new();
    for at in 0..places.len() {
        let text = places[at].0.city;
        if let Some((label, taken)) = label(text, size, boxes[at], &boxes) {
            labels.push(label);
            boxes.push(taken);
        }
    }
    Scale { name, size, dots, labels }
}

/// Beside, below or above the dots, where there is room. Otherwise there is none: the table has the name.
fn label(text: &str, size: f64, dots: Area, taken: &[Area]) -> Option<(Label, Area)> {
    let gap = size * 0.4;
    let width = f64::from(u32::try_from(text.chars().count()).unwrap_or(u32::MAX)) * size * 0.58;
    let (middle, centre) = (f64::midpoint(dots.left, dots.right), f64::midpoint(dots.top, dots.bottom));
    let places = [
        ("start", dots.right + gap, dots.right + gap, centre),
        ("end", dots.left - gap, dots.left - gap - width, centre),
        ("middle", middle, middle - width / 2.0, dots.bottom + size * 0.8),
        ("middle", middle, middle - width / 2.0, dots.top - size * 0.8),
    ];
    places.into_iter().find_map(|(anchor, x, left, y)| {
        let wanted = Area { left, right: left + width, top: y - size * 0.55, bottom: y + size * 0.55 };
        let fits =
            wanted.left > 0.0 && wanted.right < WIDTH && !taken.iter().any(|taken| wanted.meets(taken));
        let label = Label { x: tenth(x), y: tenth(y + size * 0.35), anchor, text: text.to_owned() };
        fits.then_some((label, wanted))
    })
}

/// What is drawn has no use for more.
fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[derive(Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn meets(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

/// Miller's cylindrical projection, from degrees to the map's units.
fn project(latitude: f64, longitude: f64) -> (f64, f64) {
    let north = |latitude: f64| 1.25 * (PI / 4.0 + 0.4 * latitude.to_radians()).tan().ln();
    let scale = WIDTH / (2.0 * PI);
    (WIDTH / 2.0 + scale * longitude.to_radians(), scale * (north(TOP) - north(latitude)))
}

/// Along the great circle. Where it crosses the map's edge it goes on at the other one.
fn way(from: &Place, to: &Place) -> String {
    let (start, end) = (direction(from), direction(to));
    let angle = start.iter().zip(end).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0).acos();
    let mut data = String::new();
    let mut last: Option<(f64, f64)> = None;
    for step in 0..=STEPS {
        let share = f64::from(step) / f64::from(STEPS);
        let (of_start, of_end) = (((1.0 - share) * angle).sin(), (share * angle).sin());
        let [x, y, z] = [0, 1, 2].map(|axis| of_start * start[axis] + of_end * end[axis]);
        let at = project(z.atan2(x.hypot(y)).to_degrees(), y.atan2(x).to_degrees());
        if let Some(last) = last
            && (at.0 - last.0).abs() > WIDTH / 2.0
        {
            let (edge, beyond) = if at.0 < last.0 { (WIDTH, at.0 + WIDTH) } else { (0.0, at.0 - WIDTH) };
            let y = last.1 + (at.1 - last.1) * (edge - last.0) / (beyond - last.0);
            let _ = write!(data, "L{edge:.0} {y:.1}M{:.0} {y:.1}", WIDTH - edge);
        }
        let _ = write!(data, "{}{:.1} {:.1}", if last.is_some() { 'L' } else { 'M' }, at.0, at.1);
        last = Some(at);
    }
    data
}

/// On a sphere of radius one.
fn direction(place: &Place) -> [f64; 3] {
    let (latitude, longitude) = (place.latitude.to_radians(), place.longitude.to_radians());
    [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::PLACES;

    /// The corners of each piece of land, from the picture itself.
    fn land() -> Vec<Vec<(f64, f64)>> {
        let picture = include_str!("../../../static/land.svg");
        let data = picture.split_once(" d=\"").unwrap().1.split_once('"').unwrap().0;
        let pieces = data.split('z').filter(|piece| piece.contains('M'));
        pieces
            .map(|piece| {
                let spaced = piece.replace(['M', 'l'], " ").replace('-', " -");
                let numbers: Vec<f64> = spaced.split_whitespace().map(|n| n.parse().unwrap()).collect();
                let steps = numbers.chunks(2).map(|pair| (pair[0], pair[1]));
                steps
                    .scan((0.0, 0.0), |at, step| {
                        *at = (at.0 + step.0, at.1 + step.1);
                        Some(*at)
                    })
                    .collect()
            })
            .collect()
    }

    fn is_inside(piece: &[(f64, f64)], (x, y): (f64, f64)) -> bool {
        let edges = piece.iter().zip(piece.iter().cycle().skip(1));
        let crossed =
            edges.filter(|(a, b)| (a.1 > y) != (b.1 > y) && x < a.0 + (y - a.1) * (b.0 - a.0) / (b.1 - a.1));
        crossed.count() % 2 == 1
    }

    #[test]
    fn every_region_is_on_land_or_at_its_coast() {
        let land = land();
        assert!(land.len() > 20);
        for place in PLACES {
            let (x, y) = project(place.latitude, place.longitude);
            let around =
                (-6..=6).flat_map(|dx| (-6..=6).map(move |dy| (x + f64::from(dx), y + f64::from(dy))));
            let on_land = around.filter(|at| land.iter().any(|piece| is_inside(piece, *at))).count();
            assert!(on_land > 30, "{}: {on_land} of 169 points are land", place.city);
        }
        // The Pacific and the Sahara, so that this can fail.
        let is_land =
            |latitude, longitude| land.iter().any(|piece| is_inside(piece, project(latitude, longitude)));
        assert!(!is_land(0.0, -140.0) && is_land(20.0, 10.0));
    }

    #[test]
    fn a_way_over_the_pacific_leaves_the_map_and_comes_back() {
        let place = |code: &str| PLACES.iter().find(|place| place.code == code).unwrap();
        let pacific = way(place("sjc"), place("syd"));
        assert_eq!(pacific.matches('M').count(), 2, "{pacific}");
        assert!(pacific.contains("L0 ") && pacific.contains("M1000 "), "{pacific}");
        assert_eq!(way(place("sjc"), place("ams")).matches('M').count(), 1);
    }

    #[test]
    fn names_that_have_no_room_are_left_out_and_none_covers_another() {
        let places: Vec<_> = PLACES.iter().map(|place| (place, vec![Kind::Replica])).collect();
        let named = |(name, size)| scale(name, size, &places).labels.len();
        let [narrow, .., huge] = SCALES.map(named);
        assert!(narrow < huge && huge <= PLACES.len(), "{narrow}, {huge}");
    }
}
