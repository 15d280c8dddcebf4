//! What the writer says in the log: a state that lasts is one line when it begins, and one when it ends.

use tracing::{info, warn};

use crate::instance::{Instance, InstanceId};

/// What was said of the role since this instance was last primary. While a primary is dead and its lease has not run out,
/// LiteFS names it, and then nobody, once a second: that is one event, and one line.
#[derive(Default)]
pub(super) struct Roles {
    primary: Option<InstanceId>,
    nobody: bool,
}

/// What was said of the clicks that are not acknowledged, or not by others, since this instance became primary.
#[derive(Default)]
pub(super) struct Clicks {
    said: Said,
    /// So many were acknowledged alone.
    alone: usize,
}

#[derive(Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    Alone,
    Refused(String),
}

impl Roles {
    pub(super) fn replica_of(&mut self, primary: &InstanceId, this: &Instance) {
        if self.primary.as_ref() != Some(primary) {
            *self = Self { primary: Some(primary.clone()), nobody: false };
            let (id, region) = (this.id(), this.region());
            info!(
                "Instance ({id}) in {region} is not primary (the primary instance is {primary}). Skipping migrations."
            );
        }
    }

    pub(super) fn no_primary(&mut self) {
        if !self.nobody {
            self.nobody = true;
            info!(
                "No primary is known. Reading works, writing resumes with one. If that lasts: is Consul up, and a \
                 candidate?"
            );
        }
    }
}

impl Clicks {
    pub(super) fn confirmed(&mut self) {
        if self.says(Said::Nothing) {
            info!(alone = self.alone, "Another candidate confirms clicks again.");
        }
    }

    pub(super) fn alone(&mut self, clicks: usize) {
        self.alone += clicks;
        if self.says(Said::Alone) {
            warn!(
                "No other candidate is up: clicks are acknowledged alone. They are lost if this volume is, or if a \
                 candidate without them becomes primary. Start another candidate."
            );
        }
    }

    pub(super) fn refused(&mut self, reason: &str) {
        if self.says(Said::Refused(reason.to_owned())) {
            warn!(
                reason,
                "Clicks are not acknowledged. If that lasts: are the other candidate and Consul up, and reached from \
                 here?"
            );
        }
    }

    /// Whether this is something new.
    fn says(&mut self, now: Said) -> bool {
        let is_new = self.said != now;
        self.said = now;
        is_new
    }
}
