//! The count, live: read anew each time a transaction can be seen on this node, while anybody listens.
//!
//! LiteFS's own events tell when, not the memory of this process: a replica hears of the primary's clicks as the primary
//! does. One reader serves all listeners; of a burst of transactions they see the last.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time,
};

use super::reader::Reader;
use crate::instance::{Instance, Position};

/// Pause before a count that could not be read is read again.
const RETRY: Duration = Duration::from_millis(250);

/// What this node sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The count.
    pub count: i64,
    /// How far the database is: the count is not older. `None` without LiteFS.
    pub position: Option<Position>,
    /// The same as one number: the TXID, or without LiteFS the number of commits of this process.
    pub version: u64,
}

#[derive(Debug)]
pub(super) struct Live {
    seen: watch::Sender<Option<Snapshot>>,
    /// Told when somebody begins to listen.
    listened: Arc<Notify>,
}

impl Live {
    /// `committed` changes with each commit of this process, which without LiteFS is all there is. Needs a Tokio runtime.
    pub(super) fn new(reader: Arc<Reader>, instance: Instance, committed: watch::Receiver<u64>) -> Self {
        let (seen, listened) = (watch::Sender::new(None), Arc::new(Notify::new()));
        let follow = follow(seen.clone(), listened.clone(), reader, instance, committed);
        tokio::spawn(follow);
        Self { seen, listened }
    }

    /// The newest state as it comes; `None` until it is read for the first time.
    pub(super) fn listen(&self) -> watch::Receiver<Option<Snapshot>> {
        let listener = self.seen.subscribe();
        self.listened.notify_one();
        listener
    }
}

async fn follow(
    seen: watch::Sender<Option<Snapshot>>,
    listened: Arc<Notify>,
    reader: Arc<Reader>,
    instance: Instance,
    mut committed: watch::Receiver<u64>,
) {
    let mut position = instance.watch_position();
    loop {
        if seen.is_closed() {
            // What was seen before the last listener left is old.
            seen.send_replace(None);
            listened.notified().await;
        }
        // Both before the read: what changes during it is read once more.
        let at = *position.borrow_and_update();
        let commits = *committed.borrow_and_update();
        let read = reader.current().await;
        if let Ok(count) = &read {
            let version = at.map_or(commits, |at| at.txid.0);
            let now = Some(Snapshot { count: *count, position: at, version });
            seen.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        }
        tokio::select! {
            changed = position.changed() => if changed.is_err() { return },
            // LiteFS tells of a commit a moment later, with the position that it leads to.
            changed = committed.changed(), if !instance.is_replicated() => if changed.is_err() { return },
            () = seen.closed() => {}
            () = time::sleep(RETRY), if read.is_err() => {}
        }
    }
}
