//! Conditions with a deadline.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

/// What is a matter of milliseconds, on a slow machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Ten seconds of Consul's session, twice that until it is reaped, LiteFS's delays, and a slow machine.
pub const ELECTION: Duration = Duration::from_mins(1);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something; fails with what was seen last.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() > deadline => {
                return Err(anyhow!("not within {within:?}: {what}; seen last: {seen:#}"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
