//! What happens when an instance ends without being told to.

use std::{
    process::ExitStatus,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{
    process::Child,
    sync::watch,
    time::{Instant, sleep},
};

use super::{Instance, Running, State};

/// The pause before the first restart of an instance that ended by itself; twice as long each time after.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// An instance that ran this long has started well: if it ends, that is the first time again.
const SETTLED: Duration = Duration::from_secs(30);

/// A machine's main process, as the task that watches over it has it.
pub struct Main {
    pub process: Child,
    pub running: Weak<Running>,
    pub has_ended: watch::Sender<Option<ExitStatus>>,
    /// When it was started.
    pub since: Instant,
}

/// Notices that the main process ends, and starts the instance again where that is wanted.
///
/// It holds the instance only while it changes it: an instance that is dropped takes its machine with it.
pub async fn watch_over(instance: Weak<Instance>, mut main: Main) {
    let mut pause = FIRST_PAUSE;
    loop {
        let status = main.process.wait().await;
        main.has_ended.send_replace(status.as_ref().ok().copied());
        let Some(this) = instance.upgrade() else { return };
        if !this.reap(&main).await {
            return;
        }
        tracing::warn!(instance = this.id, ?status, "ended by itself");
        if !this.shared.restart.load(Ordering::Relaxed) {
            return;
        }
        drop(this);
        if main.since.elapsed() > SETTLED {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);

        let Some(this) = instance.upgrade() else { return };
        let _turn = this.turn.lock().await;
        if this.state() != State::Crashed {
            return;
        }
        match this.boot().await {
            Ok(restarted) => main = restarted,
            Err(error) => {
                tracing::error!(instance = this.id, ?error, "cannot be started again");
                return;
            }
        }
    }
}

impl Instance {
    /// Takes the machine away and returns true, unless the instance was told to end: who told it does so then.
    async fn reap(&self, main: &Main) -> bool {
        let running = {
            let mut life = self.life();
            let is_this = life.running.as_ref().is_some_and(|now| main.running.as_ptr() == Arc::as_ptr(now));
            if life.state != State::Running || !is_this {
                return false;
            }
            self.enter(&mut life, State::Crashed);
            life.running.take()
        };
        if let Some(running) = running {
            running.machine.end().await;
        }
        true
    }
}
