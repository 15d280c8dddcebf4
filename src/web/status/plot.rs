//! Curves of the last minutes, as SVG's path data. A plot is [`WIDTH`] seconds wide and [`HEIGHT`] high; its text
//! stands beside it, in HTML.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    time::{Duration, Instant},
};

use crate::counter::RATE_SECONDS;

pub(super) const WIDTH: usize = RATE_SECONDS;
pub(super) const HEIGHT: f64 = 100.0;
/// Of several values of lag within as many seconds the highest is shown: between two words of the primary it grows to a
/// second by itself.
const TOGETHER: u64 = 2;

/// Steps, one for each second, filled down to zero.
pub(super) fn steps(values: &[u32], top: f64) -> String {
    let mut data = format!("M0 {HEIGHT}");
    let mut last = 0;
    for (second, value) in values.iter().enumerate() {
        if *value != last {
            let _ = write!(data, "H{second}V{:.1}", HEIGHT * (1.0 - f64::from(*value) / top));
            last = *value;
        }
    }
    let _ = write!(data, "H{}V{HEIGHT}z", values.len());
    data
}

/// A line through what was measured, with a gap where nothing was. `since` is the same at each call, so that the line
/// moves on and does not change.
pub(super) fn line(values: &VecDeque<(Instant, Duration)>, since: Instant, top: f64) -> String {
    let now = since.elapsed().as_secs() / TOGETHER;
    let mut data = String::new();
    let mut last: Option<u64> = None;
    let mut values = values
        .iter()
        .map(|(at, lag)| (at.saturating_duration_since(since).as_secs() / TOGETHER, lag.as_secs_f64()));
    let mut next = values.next();
    while let Some((time, mut highest)) = next {
        next = values.next();
        while let Some((_, value)) = next.filter(|(same, _)| *same == time) {
            highest = highest.max(value);
            next = values.next();
        }
        // What lies in the bucket that has begun would change until it is full.
        if time >= now {
            break;
        }
        let age = usize::try_from((now - time) * TOGETHER).unwrap_or(WIDTH);
        let is_next = last.is_some_and(|last| time - last <= 1);
        let x = WIDTH.saturating_sub(age);
        let _ = write!(
            data,
            "{}{x} {:.1}",
            if is_next { 'L' } else { 'M' },
            HEIGHT * (1.0 - (highest / top).min(1.0))
        );
        last = Some(time);
    }
    data
}

/// A round number that is not smaller: 1, 2 or 5, and zeros.
pub(super) fn top(highest: f64) -> f64 {
    let zeros = 10_f64.powf(highest.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * zeros)
        .find(|top| *top >= highest)
        .unwrap_or(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_ends_at_a_round_number() {
        let tops = [0.0, 1.0, 1.5, 2.0, 7.0, 10.0, 99.0, 1234.0].map(|highest| top(highest).to_string());
        assert_eq!(tops, ["1", "1", "2", "2", "10", "10", "100", "2000"]);
    }

    #[test]
    fn each_second_is_a_step() {
        assert_eq!(steps(&[0, 0, 5, 5, 0], 10.0), "M0 100H2V50.0H4V100.0H5V100z");
        assert_eq!(steps(&[], 1.0), "M0 100H0V100z");
    }

    #[test]
    fn a_line_shows_the_highest_of_what_is_close_together_and_breaks_where_nothing_was_measured() {
        let now = Instant::now();
        let since = now.checked_sub(Duration::from_secs(20)).expect("the machine runs for longer");
        let lags = [(0.0, 500), (1.0, 1000), (2.0, 250), (10.0, 500), (12.5, 9000), (20.0, 7000)];
        let at = |seconds| since + Duration::from_secs_f64(seconds);
        let lags = lags.map(|(seconds, lag)| (at(seconds), Duration::from_millis(lag))).into();
        assert_eq!(line(&lags, since, 1.0), "M280 0.0L282 75.0M290 50.0L292 0.0");
    }
}
