//! Batch after batch, while this instance is primary.
//!
//! Clicks that arrive while a transaction is being committed and confirmed go together into the next one: on LiteFS a
//! transaction costs milliseconds, a row in it microseconds. A lone click does not wait for company.

use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use super::{Click, Writer};
use crate::{
    counter::{ClickError, Counted, HandOver, announce, batch, hold::Order, key::Keys, tally::Outcome},
    instance::{Confirmation, Confirmer, HandOverError, NextTransaction, Policy, Position, Role},
};

/// The most clicks in one transaction: it bounds how long the first of them waits for the last.
const BATCH: usize = 1024;
/// The part of a transaction's time that may be spent to make the next one larger.
const GATHER: u32 = 2;
/// And no more of it: a transaction takes milliseconds, but for one that waited for a lock, or for a candidate that is gone.
const LONGEST_GATHER: Duration = Duration::from_millis(50);
/// How long LiteFS's report of a transaction is waited for, which comes with the commit; then its file is read.
const REPORT: Duration = Duration::from_millis(100);

/// Why the writer stops to write.
pub(super) enum End {
    /// It was told to close, and the queue is empty.
    Closed,
    /// This instance is no longer primary.
    LeaseLost,
    /// Another one is to be.
    HandOver(HandOver),
    /// Nothing may be written for a while.
    Hold(Order),
}

/// What a primary holds.
pub(super) struct Held {
    pub(super) connection: SqliteConnection,
    pub(super) keys: Keys,
    pub(super) confirmer: Confirmer,
    /// Where the database was after the last commit.
    pub(super) at: Option<Position>,
    /// SQLite's number in the last batch, which changes where others write.
    pub(super) data_version: Option<i64>,
    pub(super) announced: announce::Clicks,
}

impl Writer {
    pub(super) async fn write(&mut self, held: &mut Held) -> Result<End, sqlx::Error> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut pace = Pace { around: 1, took: Duration::ZERO, ended: Instant::now() };
        while self.instance.writes() {
            tokio::select! {
                biased;
                changed = self.role.changed() => if changed.is_err() { return Ok(End::Closed) },
                () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                Some(request) = self.hand_overs.recv() => return Ok(End::HandOver(request)),
                Some(order) = self.holds.recv() => return Ok(End::Hold(order)),
                taken = self.queue.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return Ok(End::Closed);
                    }
                    self.gather(&mut batch, pace).await;
                    let (clicks, begun) = (batch.len(), Instant::now());
                    self.count(held, &mut batch).await?;
                    let ended = Instant::now();
                    pace = Pace { around: clicks + self.queue.len(), took: ended - begun, ended };
                }
            }
        }
        Ok(End::LeaseLost)
    }

    /// Lets those come back who were all answered at once a moment ago: otherwise the first few of them would be a batch
    /// of their own, and all others would wait for two. A lone click is not waited with: there was nobody before it.
    async fn gather(&mut self, batch: &mut Vec<Click>, pace: Pace) {
        let (expected, until) = (pace.expected(), Instant::now() + (pace.took / GATHER).min(LONGEST_GATHER));
        while batch.len() < expected {
            let more = self.queue.recv_many(batch, BATCH - batch.len());
            if time::timeout_at(until, more).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    /// Commits a batch, has it confirmed, and answers each click in it.
    async fn count(&mut self, held: &mut Held, batch: &mut Vec<Click>) -> Result<(), sqlx::Error> {
        let tell_all = |batch: &mut Vec<Click>, error: &ClickError| {
            batch.drain(..).for_each(|click| click.tell(Err(error.clone())));
        };
        if let Err(reason) = self.is_ready(held).await {
            held.announced.refused(&reason);
            tell_all(batch, &ClickError::NotReady);
            return Ok(());
        }
        self.tally.batches.observe(batch.len() as u64);
        let next = held.at.and_then(|at| self.instance.next_transaction(at));
        let committed = match batch::commit(&mut held.connection, &mut held.keys, batch).await {
            Ok(committed) => committed,
            Err((told, error)) => {
                tell_all(batch, &told);
                return Err(error);
            }
        };
        let batch::Results { answers, repeated, has_written, data_version } = committed;
        let is_only_writer = held.data_version.replace(data_version) == Some(data_version);
        let next = next.filter(|_| has_written && is_only_writer);
        self.committed.send_modify(|commits| *commits += 1);
        let begun = Instant::now();
        let confirmed = self.confirm(held, next).await;
        self.tally.confirmations.observe_time(begun.elapsed());
        match confirmed {
            Ok((at, confirmation)) => {
                if at.is_some() {
                    self.confirmed.send_replace(at);
                }
                let counted = answers.iter().filter(|answer| answer.is_ok()).count();
                self.rate.add(counted);
                self.tally.add(Outcome::Repeated, repeated);
                if confirmation == Confirmation::Alone {
                    held.announced.alone(counted);
                    self.tally.add(Outcome::Alone, counted - repeated);
                } else {
                    self.tally.add(Outcome::Counted, counted - repeated);
                    held.announced.confirmed();
                }
                let version = at.map_or(*self.committed.borrow(), |at| at.txid.0);
                for (click, answer) in batch.drain(..).zip(answers) {
                    let confirmation = confirmation.clone();
                    click.tell(answer.map(|count| Counted { count, position: at, version, confirmation }));
                }
            }
            Err(reason) => {
                held.announced.refused(&reason);
                tell_all(batch, &ClickError::Unknown);
            }
        }
        Ok(())
    }

    /// Why no transaction of now could be acknowledged.
    async fn is_ready(&self, held: &mut Held) -> Result<(), String> {
        if held.at.is_none() {
            held.at = self.position().await?;
        }
        match held.at {
            Some(at) => held.confirmer.ready(at).await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Where the database is after the transaction, which is confirmed, and by whom.
    async fn confirm(
        &self,
        held: &mut Held,
        next: Option<NextTransaction>,
    ) -> Result<(Option<Position>, Confirmation), String> {
        held.at = None;
        let mut role = self.instance.watch();
        let lost = async {
            let _ = role.wait_for(|role| !matches!(role, Ok(Role::Standalone | Role::Primary))).await;
        };
        let confirmed = async {
            held.at = match next {
                Some(next) => next.reported(REPORT).await,
                None => None,
            };
            if held.at.is_none() {
                held.at = self.position().await?;
            }
            let Some(at) = held.at else {
                let is_replicated = self.instance.is_replicated();
                return Ok((None, if is_replicated { Confirmation::Off } else { Confirmation::Standalone }));
            };
            let confirmation = held.confirmer.confirm(at).await.map_err(|error| error.to_string())?;
            Ok((Some(at), confirmation))
        };
        tokio::select! {
            // Whatever is confirmed once the role is lost may be of another history.
            biased;
            () = lost => Err("this instance is no longer primary".to_owned()),
            confirmed = confirmed => confirmed,
        }
    }

    /// Where the database is. `None` where nobody else needs to have it and LiteFS does not tell.
    pub(super) async fn position(&self) -> Result<Option<Position>, String> {
        if !self.instance.is_replicated() {
            return Ok(None);
        }
        match self.instance.position().await {
            Ok(Some(position)) => Ok(Some(position)),
            _ if self.settings.confirm == Policy::Off => Ok(None),
            Ok(None) => Err("LiteFS does not know the database".to_owned()),
            Err(error) => Err(format!("LiteFS's position cannot be read: {error}")),
        }
    }

    /// Has another candidate take over. Nothing is written meanwhile.
    pub(super) async fn hand_over(&self, confirmer: &Confirmer, request: HandOver) {
        let done = match (self.position().await, confirmer.candidates()) {
            (Ok(Some(at)), Some(mut others)) => {
                others.hand_over(at, request.to.as_ref(), request.until).await
            }
            _ => Err(HandOverError::NoHeir),
        };
        match &done {
            Ok(heir) => info!(%heir, "Handed the role over."),
            Err(error) => warn!(%error, "The role was not handed over."),
        }
        request.tell(done);
    }
}

/// How many click at this time.
#[derive(Clone, Copy)]
struct Pace {
    /// Those who have just been answered, and those who came meanwhile.
    around: usize,
    /// How long the last batch took, and when it was answered.
    took: Duration,
    ended: Instant,
}

impl Pace {
    /// How many to wait for. Who clicks alone has nobody to wait for.
    fn expected(self) -> usize {
        if self.ended.elapsed() < self.took { self.around.min(BATCH) } else { 1 }
    }
}
