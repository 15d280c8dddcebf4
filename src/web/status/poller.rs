//! Asks all instances again and again, for everybody who looks at `GET /status`, and only while somebody does.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{self, Instant},
};

use super::survey::{Answer, Survey};
use crate::{
    counter::Counter,
    instance::{Instance, InstanceId, Listed, Observer},
    web::vitals::Vitals,
};

/// From one round of questions to the next. With [`ANSWER`] it is less than a second: so old is at most what is shown.
const PERIOD: Duration = Duration::from_millis(200);
/// How long an instance may take to answer. The first answer from the other side of the earth takes two round trips.
const ANSWER: Duration = Duration::from_millis(700);
/// How long somebody counts as looking who has loaded the page: its script comes back each second.
const ATTENTION: Duration = Duration::from_secs(5);

/// One for all who look. Its task ends with it.
#[derive(Debug)]
pub(in crate::web) struct Poller {
    looked: watch::Sender<Option<Instant>>,
    seen: watch::Receiver<Arc<Survey>>,
}

impl Poller {
    /// Asks nobody yet. `started` is when this process was, and `port` is `PRIVATE_ADDR`'s, the same on all instances.
    /// Needs a Tokio runtime.
    pub(in crate::web) fn new(
        instance: Instance,
        counter: Arc<Counter>,
        started: Instant,
        port: Option<u16>,
    ) -> Self {
        let this = Listed { id: instance.id().clone(), region: instance.region().clone() };
        let (looked, is_looked_at) = watch::channel(None);
        let (survey, seen) = watch::channel(Arc::new(Survey::new(this.clone())));
        // On the private network: no proxy, no certificates.
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER).build();
        let http = http.expect("neither a proxy nor certificates, which could fail, are in it");
        let (observers, asking, asked) = (HashMap::new(), JoinSet::new(), HashMap::new());
        let rounds =
            Rounds { instance, this, counter, started, port, http, observers, asking, asked, survey };
        tokio::spawn(rounds.run(is_looked_at));
        Self { looked, seen }
    }

    /// What is known, once each instance has answered or `patience` is over.
    pub(super) async fn look(&self, patience: Duration) -> Arc<Survey> {
        self.looked.send_replace(Some(Instant::now()));
        let mut seen = self.seen.clone();
        let settled = seen.wait_for(|survey| survey.is_settled());
        // Those that have not answered are shown as asked.
        let _ = time::timeout(patience, settled).await;
        self.seen.borrow().clone()
    }
}

struct Rounds {
    instance: Instance,
    this: Listed,
    counter: Arc<Counter>,
    started: Instant,
    port: Option<u16>,
    http: reqwest::Client,
    /// They hold connections.
    observers: HashMap<InstanceId, Observer>,
    asking: JoinSet<(InstanceId, Answer)>,
    /// Each one's last question: who has not answered that is asked nothing more.
    asked: HashMap<InstanceId, AbortHandle>,
    survey: watch::Sender<Arc<Survey>>,
}

impl Rounds {
    async fn run(mut self, mut looked: watch::Receiver<Option<Instant>>) {
        loop {
            let last = *looked.borrow_and_update();
            if last.is_none_or(|last| last.elapsed() > ATTENTION) {
                self.observers.clear();
                // What would still be answered is old when it is looked at.
                self.asking = JoinSet::new();
                self.asked.clear();
                self.note(Survey::rest);
                if looked.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let next = Instant::now() + PERIOD;
            self.ask_all().await;
            // Each is shown as soon as it is there, and none waits for another one.
            loop {
                tokio::select! {
                    Some(answered) = self.asking.join_next() => if let Ok((id, answer)) = answered {
                        self.note(|survey| survey.answered(&id, answer));
                    },
                    () = time::sleep_until(next) => break,
                }
            }
            if looked.has_changed().is_err() {
                return;
            }
        }
    }

    async fn ask_all(&mut self) {
        let listed = self.list().await;
        self.note(|survey| survey.list(listed.as_deref()));
        let listed = listed.unwrap_or_else(|| {
            let known = self.survey.borrow().sightings.clone();
            known.into_iter().map(|(id, sighting)| Listed { id, region: sighting.region }).collect()
        });
        self.observers.retain(|id, _| listed.iter().any(|listed| listed.id == *id));
        for Listed { id, .. } in listed {
            if self.asked.get(&id).is_some_and(|question| !question.is_finished()) {
                continue;
            }
            let Some(observer) = self.observer(&id) else { continue };
            let (of, vitals) = (id.clone(), self.vitals(&id));
            let question = self.asking.spawn(async move { (of, ask(&observer, vitals).await) });
            self.asked.insert(id, question);
        }
    }

    /// `None`: private DNS does not tell.
    async fn list(&self) -> Option<Vec<Listed>> {
        // Without replication, or without a name in a private DNS, nobody else can be known.
        if !self.instance.is_replicated() || self.instance.private_address(&self.this.id).is_none() {
            return Some(vec![self.this.clone()]);
        }
        let mut listed = time::timeout(ANSWER, self.instance.instances()).await.ok()?.ok()?;
        if !listed.contains(&self.this) {
            listed.push(self.this.clone());
        }
        Some(listed)
    }

    fn observer(&mut self, of: &InstanceId) -> Option<Observer> {
        if !self.observers.contains_key(of) {
            self.observers.insert(of.clone(), self.instance.observer(of)?);
        }
        self.observers.get(of).cloned()
    }

    fn vitals(&self, of: &InstanceId) -> impl Future<Output = Option<Vitals>> + use<> {
        let own = (*of == self.this.id).then(|| Vitals::now(&self.counter, self.started));
        let host = self.instance.private_address(of).zip(self.port);
        let request = host.map(|(host, port)| self.http.get(format!("http://{host}:{port}/instance")));
        async move {
            match own {
                Some(own) => Some(own),
                None => request?.send().await.ok()?.error_for_status().ok()?.json().await.ok(),
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Survey)) {
        self.survey.send_modify(|survey| change(Arc::make_mut(survey)));
    }
}

async fn ask(observer: &Observer, vitals: impl Future<Output = Option<Vitals>>) -> Answer {
    let begun = Instant::now();
    let (report, vitals) =
        tokio::join!(time::timeout(ANSWER, observer.report()), time::timeout(ANSWER, vitals));
    Answer { report: report.ok().and_then(Result::ok), vitals: vitals.ok().flatten(), took: begun.elapsed() }
}
