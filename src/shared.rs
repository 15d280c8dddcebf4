//! One piece of work for all who ask for it at the same time.
//!
//! On LiteFS a query costs a hundred times what handing its result on does. Whoever asks while the work is being done waits for
//! the next turn: what they get was begun after they asked, so that it is never older than what they could have seen.

use tokio::{
    sync::{mpsc, oneshot},
    task,
};

/// How many may wait for a turn before those who come next wait for a place.
const WAITING: usize = 4096;

/// What is done, one at a time.
pub(crate) trait Work: Send + 'static {
    /// What all who asked get.
    type Output: Clone + Send + 'static;

    /// Begins anew each time: what it returns must not be older than the call.
    fn run(&mut self) -> impl Future<Output = Self::Output> + Send;
}

/// To ask for it.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    asking: mpsc::Sender<oneshot::Sender<T>>,
}

impl<T: Clone + Send + 'static> Shared<T> {
    /// Does the work in a task that ends with this. Needs a Tokio runtime.
    pub(crate) fn new(mut work: impl Work<Output = T>) -> Self {
        let (asking, mut asked) = mpsc::channel::<oneshot::Sender<T>>(WAITING);
        tokio::spawn(async move {
            let mut together = Vec::new();
            while asked.recv_many(&mut together, WAITING).await > 0 {
                // Whoever is about to ask comes along: those who were just answered, above all.
                task::yield_now().await;
                while let Ok(one) = asked.try_recv() {
                    together.push(one);
                }
                let result = work.run().await;
                for one in together.drain(..) {
                    // Where nobody listens any more, they have left.
                    let _ = one.send(result.clone());
                }
            }
        });
        Self { asking }
    }

    /// The result of work that begins now or later. `None` where the work has panicked.
    pub(crate) async fn get(&self) -> Option<T> {
        let (one, result) = oneshot::channel();
        self.asking.send(one).await.ok()?;
        result.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use tokio::{sync::Semaphore, task::JoinSet};

    use super::*;

    /// Reads a number, and then takes until it is let go.
    struct SlowRead {
        number: Arc<AtomicU64>,
        begun: mpsc::UnboundedSender<()>,
        go: Arc<Semaphore>,
        runs: u64,
    }

    impl Work for SlowRead {
        /// The number, and which run has read it.
        type Output = (u64, u64);

        async fn run(&mut self) -> (u64, u64) {
            let number = self.number.load(Ordering::SeqCst);
            self.runs += 1;
            self.begun.send(()).unwrap();
            self.go.acquire().await.unwrap().forget();
            (number, self.runs)
        }
    }

    #[tokio::test]
    async fn who_asks_while_it_is_done_gets_the_next_and_all_of_them_the_same() {
        let (number, go) = (Arc::new(AtomicU64::new(1)), Arc::new(Semaphore::new(0)));
        let (begun, mut has_begun) = mpsc::unbounded_channel();
        let read = SlowRead { number: number.clone(), begun, go: go.clone(), runs: 0 };
        let shared = Arc::new(Shared::new(read));
        let ask = |all: &mut JoinSet<_>| {
            let shared = shared.clone();
            all.spawn(async move { shared.get().await.unwrap() });
        };
        let (mut early, mut late) = (JoinSet::new(), JoinSet::new());
        ask(&mut early);
        has_begun.recv().await.unwrap();

        // The number changes after the first read has begun: whoever asks from now on must see that.
        number.store(2, Ordering::SeqCst);
        for _ in 0..100 {
            ask(&mut late);
        }
        // Each of them has asked: nothing else is left to run.
        while shared.asking.capacity() > WAITING - 100 {
            tokio::task::yield_now().await;
        }
        go.add_permits(2);

        assert_eq!(early.join_all().await, [(1, 1)]);
        assert_eq!(late.join_all().await, vec![(2, 2); 100]);
    }
}
