//! All visitors at once: each clicks, one click after the other, and looks at the page meanwhile.
//!
//! A visitor does what the page's script does: a click that was not acknowledged is sent again with the same key, until
//! it is. Now and then one is sent again that was acknowledged, as if that answer had not arrived.
//!
//! Some do what a program does that knows no keys: what was refused they send again, what may be counted they do not.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use devcluster::Cluster;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    history::{Click, Confirmation, Read},
    visitor::Visitor,
};

/// Where visitors enter. In the last one no instance is.
pub const REGIONS: [&str; 4] = ["sjc", "ams", "syd", "nrt"];
/// How many click with keys, and look meanwhile.
pub const VISITORS: usize = 16;
/// How many click without, and look meanwhile.
const KEYLESS: usize = 2;
/// How many only look: one in each region.
const ONLOOKERS: usize = REGIONS.len();

/// Between an acknowledgement and the next click.
const THINKING: Duration = Duration::from_millis(10);
/// Between a failure and the next try.
const AGAIN: Duration = Duration::from_millis(100);
/// Between a click of which nobody knows whether it was counted and the next one of the same visitor. So few are made that
/// they leave no room for others that are counted twice.
const WONDERING: Duration = Duration::from_secs(3);
/// Between two looks at the page.
const LOOKING: Duration = Duration::from_millis(100);
/// The status of a click that was not counted, by LiteFS's proxy, the edge and, without a key, the application.
const REFUSED: u16 = 503;
/// One in so many acknowledged clicks is sent once more.
const REPEATED: usize = 40;
/// How long clicks may go on being tried once no new ones are made. Longer than any fault takes to heal.
const LAST: Duration = Duration::from_mins(1);

/// Visitors who click until they are told to stop.
pub struct Load {
    /// Who clicks.
    pub visitors: Vec<Arc<Visitor>>,
    /// What all times are counted from.
    pub since: Instant,
    /// How many clicks are acknowledged.
    acknowledged: watch::Receiver<usize>,
    /// Of those, how many another candidate has.
    confirmed: watch::Receiver<usize>,
    clickers: JoinSet<Vec<Click>>,
    readers: JoinSet<Vec<Read>>,
    /// No new clicks.
    stop: CancellationToken,
    /// No new tries, and no new looks.
    give_up: CancellationToken,
}

impl Load {
    /// Lets them begin.
    pub fn start(cluster: &Cluster) -> Result<Load> {
        let since = Instant::now();
        let visitor = |number| Visitor::new(cluster, REGIONS[number % REGIONS.len()], since).map(Arc::new);
        let visitors = (0..VISITORS + KEYLESS).map(visitor).collect::<Result<Vec<_>>>()?;
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let (acknowledgements, acknowledged) = watch::channel(0);
        let (confirmations, confirmed) = watch::channel(0);
        let told = Told { acknowledgements, confirmations };
        let (mut clickers, mut readers) = (JoinSet::new(), JoinSet::new());
        for number in (VISITORS + KEYLESS..).take(ONLOOKERS) {
            readers.spawn(read(number, visitor(number)?, since, give_up.clone()));
        }
        for (number, visitor) in visitors.iter().enumerate() {
            let (stop, give_up, told) = (stop.clone(), give_up.clone(), told.clone());
            clickers.spawn(click(number, visitor.clone(), since, told, stop, give_up.clone()));
            readers.spawn(read(number, visitor.clone(), since, give_up));
        }
        Ok(Load { visitors, since, acknowledged, confirmed, clickers, readers, stop, give_up })
    }

    /// How many clicks are acknowledged by now.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until so many clicks are acknowledged, all in all.
    pub async fn until(&self, clicks: usize, within: Duration) -> Result<()> {
        let mut acknowledged = self.acknowledged.clone();
        let reached = timeout(within, acknowledged.wait_for(|count| *count >= clicks)).await;
        match reached {
            Ok(reached) => reached.map(|_| ()).context("all visitors have left"),
            Err(_) => bail!("{} clicks instead of {clicks} within {within:?}", self.acknowledged()),
        }
    }

    /// The same from now on.
    pub async fn more(&self, clicks: usize, within: Duration) -> Result<()> {
        self.until(self.acknowledged() + clicks, within).await
    }

    /// Waits until another candidate confirms clicks. The primary looks for one once a second, and a click that it acknowledges
    /// alone until then may be lost with it.
    pub async fn confirmed(&self, within: Duration) -> Result<()> {
        let mut confirmed = self.confirmed.clone();
        confirmed.mark_unchanged();
        let next = timeout(within, confirmed.changed()).await;
        next.with_context(|| format!("no other candidate confirmed a click within {within:?}"))?
            .context("all visitors have left")
    }

    /// Lets them end the clicks that they have begun, and tells what they noted.
    pub async fn finish(mut self) -> Result<(Vec<Click>, Vec<Read>)> {
        self.stop.cancel();
        let mut clicks = Vec::new();
        let deadline = sleep(LAST);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                // After that they only end the try that is under way.
                () = &mut deadline, if !self.give_up.is_cancelled() => self.give_up.cancel(),
                ended = self.clickers.join_next() => match ended {
                    Some(own) => clicks.extend(own.context("a visitor panicked")?),
                    None => break,
                },
            }
        }
        self.give_up.cancel();
        let mut reads = Vec::new();
        while let Some(own) = self.readers.join_next().await {
            reads.extend(own.context("a reader panicked")?);
        }
        Ok((clicks, reads))
    }
}

/// What all who click count together.
#[derive(Clone)]
struct Told {
    acknowledgements: watch::Sender<usize>,
    confirmations: watch::Sender<usize>,
}

async fn click(
    number: usize,
    visitor: Arc<Visitor>,
    since: Instant,
    told: Told,
    stop: CancellationToken,
    give_up: CancellationToken,
) -> Vec<Click> {
    let mut clicks = Vec::new();
    while !stop.is_cancelled() {
        let key = (number < VISITORS).then(|| format!("{number}-{}", clicks.len()));
        let mut click = Click {
            visitor: number,
            has_key: key.is_some(),
            sent: since.elapsed(),
            failures: Vec::new(),
            acknowledged: None,
            repeated: None,
        };
        // Not all at the same time.
        let is_repeated = click.has_key && (clicks.len() + number).is_multiple_of(REPEATED);
        while click.acknowledged.is_none() || is_repeated && click.repeated.is_none() {
            match visitor.click(key.as_deref()).await {
                Ok(answer) if click.acknowledged.is_none() => {
                    click.acknowledged = Some(answer);
                    told.acknowledgements.send_modify(|count| *count += 1);
                    if answer.confirmation == Confirmation::Candidates {
                        told.confirmations.send_modify(|count| *count += 1);
                    }
                }
                Ok(answer) => click.repeated = Some(answer),
                Err(_) if give_up.is_cancelled() && click.acknowledged.is_some() => break,
                Err(failure) => {
                    let may_be_counted = failure.status != Some(REFUSED);
                    // A repeat's failures are not the click's.
                    if click.acknowledged.is_none() {
                        click.failures.push(failure);
                    }
                    if give_up.is_cancelled() {
                        break;
                    }
                    if !click.has_key && may_be_counted {
                        sleep(WONDERING).await;
                        break;
                    }
                    sleep(AGAIN).await;
                }
            }
        }
        clicks.push(click);
        sleep(THINKING).await;
    }
    clicks
}

async fn read(number: usize, visitor: Arc<Visitor>, since: Instant, stop: CancellationToken) -> Vec<Read> {
    let mut reads = Vec::new();
    while !stop.is_cancelled() {
        let sent = since.elapsed();
        let seen = visitor.look().await;
        let done = since.elapsed();
        reads.push(Read { visitor: number, region: visitor.region, sent, done, seen });
        sleep(LOOKING).await;
    }
    reads
}
