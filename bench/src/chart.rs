//! Plots as SVG, legible on light and on dark pages: colours follow the reader's scheme, the background is the page's.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const LINE: f64 = 20.0;
/// Where bars begin: left of it stand their names.
const LEFT: f64 = 270.0;
/// Room for a bar's figure.
const RIGHT: f64 = 90.0;

const STYLE: &str = "<style>\
    text{font:13px system-ui,sans-serif;fill:#24292f}.head{font-weight:600}.axis{stroke:#8c959f;stroke-width:1}\
    .c0{fill:#0969da;stroke:#0969da}.c1{fill:#8c959f;stroke:#8c959f}.c2{fill:#bf8700;stroke:#bf8700}\
    .c3{fill:#1a7f37;stroke:#1a7f37}.c4{fill:#8250df;stroke:#8250df}.c5{fill:#cf222e;stroke:#cf222e}\
    polyline{fill:none!important;stroke-width:1.5}rect{stroke:none}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}\
    .c0{fill:#4493f8;stroke:#4493f8}.c2{fill:#d29922;stroke:#d29922}.c3{fill:#3fb950;stroke:#3fb950}\
    .c4{fill:#ab7df8;stroke:#ab7df8}.c5{fill:#f85149;stroke:#f85149}}</style>";

/// A group of bars under one heading.
pub struct Group {
    pub name: String,
    /// A bar's name, the number of its colour, its length.
    pub bars: Vec<(String, usize, f64)>,
}

/// Horizontal bars, all of one scale.
pub fn bars(title: &str, groups: &[Group]) -> String {
    let longest = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.2).fold(1.0, f64::max);
    let mut y = LINE * 1.5;
    let mut body = text(0.0, y, "head", "start", title);
    for group in groups {
        y += LINE * 1.5;
        body += &text(0.0, y, "head", "start", &group.name);
        for (name, colour, value) in &group.bars {
            y += LINE;
            let width = value / longest * (WIDTH - LEFT - RIGHT);
            body += &text(LEFT - 8.0, y, "", "end", name);
            let _ = write!(
                body,
                r#"<rect class="c{colour}" x="{LEFT}" y="{:.1}" width="{width:.1}" height="14"/>"#,
                y - 11.5
            );
            body += &text(LEFT + width + 6.0, y, "", "start", &thousands(*value));
        }
    }
    document(y + LINE, &body)
}

/// A line over time, in minutes.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines over time, from zero, each with its name and last value beside its end.
pub fn lines(title: &str, unit: &str, series: &[Series]) -> String {
    const TOP: f64 = 60.0;
    const HEIGHT: f64 = 220.0;
    const START: f64 = 60.0;
    let points = || series.iter().flat_map(|series| &series.points);
    let end = points().map(|point| point.0).fold(1e-9, f64::max);
    let most = points().map(|point| point.1).fold(1.0, f64::max);
    let width = WIDTH - START - 10.0;
    let (bottom, right) = (TOP + HEIGHT, START + width);
    let mut body = text(0.0, LINE, "head", "start", &format!("{title}, {unit}"));
    let _ = write!(body, r#"<path class="axis" fill="none" d="M{START} {TOP}V{bottom}H{right}"/>"#);
    body += &text(START - 6.0, TOP + 4.0, "", "end", &thousands(most));
    body += &text(START - 6.0, bottom, "", "end", "0");
    body += &text(right, bottom + LINE, "", "end", &format!("{end:.1} minutes"));
    for (colour, series) in series.iter().enumerate() {
        let mut line = String::new();
        for (time, value) in &series.points {
            let (x, y) = (START + time / end * width, bottom - value / most * HEIGHT);
            let _ = write!(line, "{x:.1},{y:.1} ");
        }
        let _ = write!(body, r#"<polyline class="c{colour}" points="{}"/>"#, line.trim_end());
        let x = START + 260.0 * crate::load::to_float(colour as u64);
        let _ = write!(body, r#"<rect class="c{colour}" x="{x:.1}" y="32" width="12" height="12"/>"#);
        body += &text(x + 18.0, 43.0, "", "start", &series.name);
    }
    document(bottom + LINE * 1.5, &body)
}

/// `12,345`; below ten with one decimal.
pub fn thousands(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#)
}

fn document(height: f64, body: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0}" viewBox="0 0 {WIDTH} {height:.0}">{STYLE}{body}</svg>
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(0.25), "0.2");
    }

    #[test]
    fn the_longest_bar_fills_the_room_and_half_of_it_half() {
        let bars = |value| vec![("a".to_owned(), 0, value), ("b & <c>".to_owned(), 1, value / 2.0)];
        let svg = super::bars("t", &[Group { name: "g".to_owned(), bars: bars(10.0) }]);
        let room = WIDTH - LEFT - RIGHT;
        assert!(svg.contains(&format!("width=\"{room:.1}\"")) && svg.contains("b &amp; &lt;c>"), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", room / 2.0)), "{svg}");
    }
}
