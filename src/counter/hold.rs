//! Nothing is written for a while: somebody replaces the database.

use std::{convert::Infallible, time::Duration};

use tokio::{sync::oneshot, time};

/// How long at most. Whoever replaces the database looks at the last moment whether it still holds.
const LONGEST: Duration = Duration::from_mins(10);

/// Asks the writer to stop.
#[derive(Debug)]
pub(super) struct Order {
    begun: oneshot::Sender<()>,
    /// Ends with [`Hold`].
    released: oneshot::Receiver<Infallible>,
    /// Ends it.
    _ended: oneshot::Sender<Infallible>,
}

/// The writer has stopped, until this is dropped.
#[derive(Debug)]
pub struct Hold {
    _released: oneshot::Sender<Infallible>,
    ended: oneshot::Receiver<Infallible>,
}

/// What to send the writer, what tells that it has stopped, and what to keep meanwhile.
pub(super) fn order() -> (Order, oneshot::Receiver<()>, Hold) {
    let ((begun, has_begun), (release, released), (end, ended)) =
        (oneshot::channel(), oneshot::channel(), oneshot::channel());
    (Order { begun, released, _ended: end }, has_begun, Hold { _released: release, ended })
}

impl Order {
    /// To be called where nothing is written. Comes back once it may be again.
    pub(super) async fn wait(self) {
        if self.begun.send(()).is_err() {
            return;
        }
        tracing::info!("Nothing is written while the database is replaced.");
        if time::timeout(LONGEST, self.released).await.is_ok() {
            tracing::info!("Whoever held up the writer has let it go.");
        } else {
            tracing::warn!("The writer was held up for {} s, and goes on.", LONGEST.as_secs());
        }
    }
}

impl Hold {
    /// Comes back when the writer goes on by itself.
    pub async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}
