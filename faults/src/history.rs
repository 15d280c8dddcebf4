//! What happened, as the visitors noted it and the instances have it in the end. All times are since the load's start.
//!
//! All clicks are increments. So every counted click has a count of its own, the one that it led to, and a count that
//! two acknowledged clicks share, or none, tells of a loss or of a duplicate.

use std::time::Duration;

/// One run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The count before the first click.
    pub base: i64,
    /// When the fault struck. Pauses before it are none of its.
    pub struck: Duration,
    /// Every click that was tried.
    pub clicks: Vec<Click>,
    /// Every page that was asked for.
    pub reads: Vec<Read>,
    /// What every instance has in the end.
    pub nodes: Vec<Node>,
}

/// One press of the button, with all its tries.
#[derive(Debug, Clone)]
pub struct Click {
    /// Who clicked.
    pub visitor: usize,
    /// Whether all its tries carry one key. A click without one is not tried again once it may have been counted.
    pub has_key: bool,
    /// When the first try was sent.
    pub sent: Duration,
    /// Each try that was not acknowledged.
    pub failures: Vec<Failure>,
    /// The first acknowledgement; `None` where it is not known whether the click was counted.
    pub acknowledged: Option<Acknowledgement>,
    /// The answer to the same click sent once more, as by somebody who did not see the first one.
    pub repeated: Option<Acknowledgement>,
}

/// A try that brought no acknowledgement, or no page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it was noticed.
    pub at: Duration,
    /// The status, or none where there was no answer.
    pub status: Option<u16>,
    /// What else there is to say.
    pub cause: String,
}

/// A click is counted, says the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// When it arrived.
    pub at: Duration,
    /// The count that the click led to, where the answer tells.
    pub count: Option<i64>,
    /// Who else has it.
    pub confirmation: Confirmation,
}

/// Who had the click besides the primary when it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// Every other candidate that was up. Such a click is never lost.
    Candidates,
    /// Nobody: no other candidate was up.
    Alone,
    /// It was not waited for.
    Off,
    /// The answer does not tell.
    Unsaid,
}

/// One page, asked for with the visitor's cookie.
#[derive(Debug, Clone)]
pub struct Read {
    /// Who read.
    pub visitor: usize,
    /// The region in which they entered.
    pub region: &'static str,
    /// When it was asked for.
    pub sent: Duration,
    /// When the answer was there.
    pub done: Duration,
    /// The count on the page.
    pub seen: Result<i64, Failure>,
}

/// What one instance has once all is quiet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The instance's id.
    pub id: String,
    /// The count on its page.
    pub count: i64,
    /// LiteFS's position: TXID and checksum.
    pub position: String,
    /// SQLite's `pragma integrity_check`.
    pub integrity: String,
}
