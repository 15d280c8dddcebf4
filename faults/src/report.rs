//! The table: a line for each fault.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    check::Verdict,
    fault::{Fault, Limit, near_and_elsewhere},
};

const HEAD: &str = "\
| fault | promise | clicks | failed first tries | acknowledged alone | lost | of those acknowledged alone | counted twice \
| writes paused | expected | reads paused, for who only looks: near the candidates, elsewhere; for who clicks | expected |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// Between these two lines of the page the table stands.
const MARKS: [&str; 2] = ["<!-- the table: cargo xtask faults writes it -->", "<!-- the table ends -->"];

/// The table's head.
#[must_use]
pub fn head() -> &'static str {
    HEAD
}

/// One fault's line.
#[must_use]
pub fn line(fault: &Fault, verdict: &Verdict) -> String {
    let (near, elsewhere) = near_and_elsewhere(&verdict.read_pauses);
    let own_click = verdict.own_click_pauses.values().map(|pause| pause.time).max().unwrap_or_default();
    let cells = [
        fault.name.replace('_', " "),
        fault.promise.to_owned(),
        verdict.clicks.to_string(),
        verdict.failed_first_tries.to_string(),
        verdict.alone.to_string(),
        verdict.lost.to_string(),
        verdict.lost_alone.to_string(),
        verdict.counted_twice.to_string(),
        seconds(verdict.write_pause.time),
        limit(fault.writes),
        format!("{}, {}; {}", seconds(near), seconds(elsewhere), seconds(own_click)),
        format!("{}; {}", limit(fault.reads), limit(fault.reads_elsewhere)),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Puts these lines into the page, in place of those that are there.
pub fn write(page: &Path, lines: &[String]) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let text = replaced(&text, lines).with_context(|| format!("{} has no marks for it", page.display()))?;
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn replaced(text: &str, lines: &[String]) -> Option<String> {
    let (before, rest) = text.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    let table = lines.join("\n");
    Some(format!("{before}{}\n{HEAD}\n{table}\n{}{after}", MARKS[0], MARKS[1]))
}

fn limit(limit: Limit) -> String {
    let kind = if limit.is_promised { "at most" } else { "about" };
    format!("{kind} {} ({})", seconds(limit.at_most), limit.why)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_and_the_rest_of_the_page_stays() {
        let page = format!("# Page\n\n{}\nold\n{}\n\nEnd.\n", MARKS[0], MARKS[1]);
        let page = replaced(&page, &["| a |".to_owned()]).unwrap();
        assert!(page.starts_with("# Page\n\n<!--") && page.ends_with("-->\n\nEnd.\n"), "{page}");
        assert!(page.contains("--- |\n| a |\n") && !page.contains("old"), "{page}");
        assert_eq!(replaced("nothing", &[]), None);
    }
}
