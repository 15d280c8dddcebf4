//! The table: a line for each fault.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    check::Verdict,
    fault::{Fault, Limit, median, near_and_elsewhere},
};

const HEAD: &str = "\
| fault | promise | runs | clicks | failed first tries | of those without a key, unknown | acknowledged alone | lost | of those acknowledged alone | counted twice \
| writes paused | expected | reads paused, for who only looks: near the candidates, elsewhere; for who clicks | expected |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// Between these two lines of the page the table stands.
const MARKS: [&str; 2] = ["<!-- the table: cargo xtask faults writes it -->", "<!-- the table ends -->"];

/// The table's head.
#[must_use]
pub fn head() -> &'static str {
    HEAD
}

/// One fault's line: of several runs the sums, and of each pause the median and the longest.
#[must_use]
pub fn line(fault: &Fault, verdicts: &[Verdict]) -> String {
    let sum = |count: fn(&Verdict) -> usize| verdicts.iter().map(count).sum::<usize>().to_string();
    let pauses = |pause: fn(&Verdict) -> Duration| all(verdicts.iter().map(pause).collect());
    let cells = [
        fault.name.replace('_', " "),
        fault.promise.to_owned(),
        verdicts.len().to_string(),
        sum(|verdict| verdict.clicks),
        sum(|verdict| verdict.failed_first_tries),
        sum(|verdict| verdict.unknown_keyless),
        sum(|verdict| verdict.alone),
        sum(|verdict| verdict.lost),
        sum(|verdict| verdict.lost_alone),
        sum(|verdict| verdict.counted_twice),
        pauses(|verdict| verdict.write_pause.time),
        limit(fault.writes),
        format!(
            "{}, {}; {}",
            pauses(|verdict| near_and_elsewhere(&verdict.read_pauses).0),
            pauses(|verdict| near_and_elsewhere(&verdict.read_pauses).1),
            pauses(|verdict| {
                verdict.own_click_pauses.values().map(|pause| pause.time).max().unwrap_or_default()
            }),
        ),
        format!("{}, {}; {}", limit(fault.reads), limit(fault.reads_elsewhere), limit(fault.own_clicks)),
    ];
    format!("| {} |", cells.join(" | "))
}

fn all(pauses: Vec<Duration>) -> String {
    let (is_one, longest) = (pauses.len() == 1, pauses.iter().max().copied());
    match (median(pauses), longest) {
        (Some(median), Some(longest)) if !is_one => format!("{} to {}", seconds(median), seconds(longest)),
        (_, Some(longest)) => seconds(longest),
        (_, None) => "-".to_owned(),
    }
}

/// Puts these lines into the page. The lines of other faults stay there if `keep` says so, and if the table has as many
/// columns as theirs.
pub fn write(page: &Path, lines: &[String], keep: bool) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let text =
        replaced(&text, lines, keep).with_context(|| format!("{} has no marks for it", page.display()))?;
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn replaced(text: &str, lines: &[String], keep: bool) -> Option<String> {
    let (before, rest) = text.split_once(MARKS[0])?;
    let (old, after) = rest.split_once(MARKS[1])?;
    let name = |line: &str| line.split('|').nth(1).unwrap_or_default().trim().to_owned();
    let mut table: Vec<String> = Vec::new();
    if keep {
        let lines = old.trim().lines();
        let has_columns = |line: &&str| line.matches('|').count() == columns();
        table.extend(lines.skip(HEAD.lines().count()).filter(has_columns).map(str::to_owned));
    }
    for line in lines {
        match table.iter_mut().find(|old| name(old) == name(line)) {
            Some(old) => old.clone_from(line),
            None => table.push(line.clone()),
        }
    }
    Some(format!("{before}{}\n{HEAD}\n{}\n{}{after}", MARKS[0], table.join("\n"), MARKS[1]))
}

/// So many bars a line has.
fn columns() -> usize {
    HEAD.lines().next().unwrap_or_default().matches('|').count()
}

fn limit(limit: Limit) -> String {
    let kind = if limit.is_promised { "at most" } else { "about" };
    let median = limit.median.map(|median| format!(", under {} at the median", seconds(median)));
    format!("{kind} {}{} ({})", seconds(limit.at_most), median.unwrap_or_default(), limit.why)
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
        let line = |name: &str| format!("| {name}{} |", " |".repeat(columns() - 2));
        let page = replaced(&page, &["a", "b"].map(line), false).unwrap();
        assert!(page.starts_with("# Page\n\n<!--") && page.ends_with("-->\n\nEnd.\n"), "{page}");
        assert!(
            page.contains(&format!("--- |\n{}\n{}\n", line("a"), line("b"))) && !page.contains("old"),
            "{page}"
        );
        let new = [line("b").replace("b |", "b | new"), line("c")];
        // A table with another number of columns would be broken: a line of an older one goes.
        let old = page.replace(&line("a"), &format!("{}\n| older |", line("a")));
        let some = replaced(&old, &new, true).unwrap();
        assert!(some.contains(&format!("--- |\n{}\n{}\n{}\n<!--", line("a"), new[0], new[1])), "{some}");
        assert_eq!(replaced("nothing", &[], false), None);
    }
}
