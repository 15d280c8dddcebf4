//! The application with one protection taken out, which has to fail: otherwise the suite sees nothing. The same happens to the
//! application as it is, which has to bear it: otherwise it would not be the protection that makes the difference.
//!
//! Where the environment cannot take a protection out, a copy of the source does: its text is changed in one place each,
//! and the variable `UNPROTECTED` of the copy says which change counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Result, ensure};
use devcluster::variant::{Edit, Variant};

use crate::{
    check::Verdict,
    run::{Application, Blow, Outcome, Scene, Strike, checkout, run},
    strikes::{network, processes},
};

/// A protection that is taken out, and what has to be seen then.
pub struct Breach {
    /// Its name, in words joined by `_`.
    pub name: &'static str,
    /// What is missing.
    pub protection: &'static str,
    /// What this protection prevents.
    pub shows: Violation,
    /// What takes it out.
    switch: Switch,
    /// `CONFIRM_WRITES` of the application as it is.
    confirm: &'static str,
    strike: Strike,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// One click counts as two.
    CountedTwice,
    /// A click that was acknowledged is not counted.
    Lost,
    /// A visitor does not see the own click.
    OwnClickMissing,
    /// A visitor waits in vain for a transaction that is gone.
    Waiting,
    /// A click fails at first, where none should.
    Noticed,
}

enum Switch {
    /// A variable that the application, or LiteFS, has anyhow.
    Environment(&'static str, &'static str),
    /// `UNPROTECTED` in the copy.
    Source(&'static str),
}

/// The copy.
const UNPROTECTED: Variant<'static> = Variant { name: "unprotected", migrations: &[], edits: &EDITS };

/// Each breaks off the build where the source no longer has its text exactly once.
const EDITS: [Edit<'static>; 4] = [
    Edit {
        file: "src/counter/batch.rs",
        old: "match &click.key {",
        new: r#"match click.key.as_ref().filter(|_| std::env::var("UNPROTECTED").as_deref() != Ok("keys")) {"#,
    },
    Edit {
        file: "src/web/cookie.rs",
        old: "let is_meant = !is_read && instance.is_replicated();",
        new: r#"let is_meant =
            !is_read && instance.is_replicated() && std::env::var("UNPROTECTED").as_deref() != Ok("cookie");"#,
    },
    // The role is given away while the writer writes. It is asked between two batches, and two of `hand_over_from_afar` take
    // as long as the way to the promotion: hence the pause of half a batch.
    Edit {
        file: "src/counter/writer/batches.rs",
        old: "Some(request) = self.hand_overs.recv() => return Ok(End::HandOver(request)),",
        new: r#"Some(mut request) = self.hand_overs.recv() => match request.to.take() {
            Some(heir) if std::env::var("UNPROTECTED").as_deref() == Ok("handover") => {
                let instance = self.instance.clone();
                tokio::spawn(async move {
                    time::sleep(Duration::from_millis(200)).await;
                    let done = instance.promote(&heir).await;
                    let failed = |reason| HandOverError::Failed { to: heir.clone(), reason };
                    request.tell(done.map(|()| heir.clone()).map_err(failed));
                });
            }
            to => return Ok(End::HandOver(HandOver { to, ..request })),
        },"#,
    },
    Edit {
        file: "src/instance/hand_over.rs",
        old: "    async fn promote(&self, heir: &InstanceId)",
        new: "    pub(crate) async fn promote(&self, heir: &InstanceId)",
    },
];

/// All of them.
#[must_use]
pub fn all() -> Vec<Breach> {
    vec![
        Breach {
            name: "breach_keys",
            protection: "the clicks' keys",
            shows: Violation::CountedTwice,
            switch: Switch::Source("keys"),
            confirm: "available",
            strike: strike(|_| Box::pin(async { Ok(()) })),
        },
        Breach {
            name: "breach_confirmation",
            protection: "the confirmation of writes",
            shows: Violation::Lost,
            switch: Switch::Environment("CONFIRM_WRITES", "off"),
            confirm: "available",
            strike: strike(|scene| Box::pin(processes::kill_unreplicated(scene))),
        },
        Breach {
            name: "breach_handover",
            protection: "the hand-over's halt, and its wait for the last transaction",
            shows: Violation::Noticed,
            switch: Switch::Source("handover"),
            confirm: "available",
            strike: strike(|scene| Box::pin(processes::hand_over_from_afar(scene))),
        },
        Breach {
            name: "breach_cookie",
            protection: "the application's own cookie, behind that of LiteFS",
            shows: Violation::Waiting,
            switch: Switch::Source("cookie"),
            // So that there are clicks which are written and not confirmed.
            confirm: "strict",
            strike: strike(|scene| Box::pin(processes::kill_unconfirmed(scene))),
        },
        Breach {
            name: "breach_cookie_wait",
            protection: "the wait of LiteFS's proxy for the cookie's transaction",
            shows: Violation::OwnClickMissing,
            // Of this name LiteFS finds no database.
            switch: Switch::Environment("DATABASE_FILENAME", "other.db"),
            confirm: "available",
            strike: strike(|scene| {
                let sydney = scene.cluster.instances().iter().find(|instance| instance.region() == "syd");
                if let Some(sydney) = sydney {
                    network::slow_down(scene, &scene.primary, sydney, FAR);
                }
                Box::pin(async { Ok(()) })
            }),
        },
    ]
}

/// The way of a packet, one way: slower than any click, so that the order of things is certain.
const FAR: Duration = Duration::from_millis(300);

/// Builds what the runs need.
pub fn build() -> Result<PathBuf> {
    UNPROTECTED.build(checkout())
}

/// Runs it, and fails if what has to be seen is not, or anything else is; or if anything is with the protection.
pub async fn try_out(breach: &Breach, seed: u64) -> Result<()> {
    let run = async |program, environment: BTreeMap<&str, &str>| {
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let application = Application { program, environment: environment.collect(), volume_size: None };
        run(&breach.strike, application, seed).await
    };
    let confirm = ("CONFIRM_WRITES", breach.confirm);
    let Outcome { verdict, logs } = run(None, BTreeMap::from([confirm])).await?;
    ensure!(
        violations(&verdict).is_empty() && verdict.violations().is_empty() && !breach.shows.is_in(&verdict),
        "with {} nothing may be seen\n{verdict:#?}\n{logs}",
        breach.protection
    );

    let (program, switch) = match breach.switch {
        Switch::Environment(name, value) => (None, (name, value)),
        Switch::Source(value) => (Some(build()?), ("UNPROTECTED", value)),
    };
    let Outcome { verdict, logs } = run(program, BTreeMap::from([confirm, switch])).await?;
    let found = violations(&verdict);
    let expected: BTreeSet<Violation> =
        [breach.shows].into_iter().filter(|shows| !BY_PRODUCTS.contains(shows)).collect();
    ensure!(
        breach.shows.is_in(&verdict) && found == expected,
        "without {}, {} has to be seen; found: {found:?}\n{verdict:#?}\n{logs}",
        breach.protection,
        breach.shows
    );
    Ok(())
}

/// What other violations bring with them, and some faults by themselves: a visitor of a lost click waits for it.
const BY_PRODUCTS: [Violation; 2] = [Violation::Waiting, Violation::Noticed];

/// What is never allowed.
fn violations(verdict: &Verdict) -> BTreeSet<Violation> {
    let never = [Violation::CountedTwice, Violation::Lost, Violation::OwnClickMissing];
    never.into_iter().filter(|violation| violation.is_in(verdict)).collect()
}

impl Violation {
    fn is_in(self, verdict: &Verdict) -> bool {
        let count = match self {
            Violation::CountedTwice => verdict.counted_twice + verdict.answered_differently,
            Violation::Lost => verdict.lost + verdict.lost_alone,
            Violation::OwnClickMissing => verdict.own_click_missing,
            Violation::Waiting => verdict.waits_in_vain(),
            Violation::Noticed => verdict.failed_first_tries,
        };
        count > 0
    }
}

fn strike(strike: impl for<'a> Fn(&'a Scene) -> Blow<'a> + Send + Sync + 'static) -> Strike {
    Box::new(strike)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::CountedTwice => "clicks are counted twice",
            Violation::Lost => "acknowledged clicks are lost",
            Violation::OwnClickMissing => "visitors miss their own clicks",
            Violation::Waiting => "visitors wait for a transaction that is gone",
            Violation::Noticed => "clicks fail at first",
        })
    }
}
