//! Whether the primary's word here is old, looked at while anybody listens to the count.
//!
//! Where a replica is cut off and nothing breaks, LiteFS goes on waiting for the primary for minutes, and says that all
//! is as it was. What it does tell is when it has last heard from it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time,
};

use crate::instance::{Instance, Observer, Role};

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// A word comes each second.
const OLD: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Word {
    is_old: watch::Sender<bool>,
    /// Told when somebody begins to listen.
    listened: Arc<Notify>,
}

impl Word {
    /// Needs a Tokio runtime.
    pub(super) fn new(instance: &Instance) -> Self {
        let (is_old, listened) = (watch::Sender::new(false), Arc::new(Notify::new()));
        if let Some(observer) = instance.observer(instance.id()).filter(|_| instance.is_replicated()) {
            tokio::spawn(follow(is_old.clone(), listened.clone(), observer));
        }
        Self { is_old, listened }
    }

    pub(super) fn listen(&self) -> watch::Receiver<bool> {
        let listener = self.is_old.subscribe();
        self.listened.notify_one();
        listener
    }
}

async fn follow(is_old: watch::Sender<bool>, listened: Arc<Notify>, observer: Observer) {
    loop {
        if is_old.is_closed() {
            is_old.send_replace(false);
            listened.notified().await;
        }
        // With no primary there is no newer word, and a LiteFS that does not answer is told by the role.
        let now = observer.report().await.is_ok_and(|report| {
            matches!(report.role, Role::Replica { .. }) && report.lag.is_some_and(|lag| lag > OLD)
        });
        is_old.send_if_modified(|old| std::mem::replace(old, now) != now);
        time::sleep(PERIOD).await;
    }
}
