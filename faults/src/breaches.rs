//! The application with one protection taken out, which has to fail: otherwise the suite sees nothing.
//!
//! Where the environment cannot take a protection out, a copy of the source does: its text is changed in one place each,
//! and the variable `UNPROTECTED` of the copy says which change counts.

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use devcluster::variant::{Edit, Variant};

use crate::{
    check::Verdict,
    run::{Application, Blow, Scene, Strike, checkout, run},
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
    /// `CONFIRM_WRITES`.
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
    // The role is given away at once, while the writer writes.
    Edit {
        file: "src/counter/writer/batches.rs",
        old: "Some(request) = self.hand_overs.recv() => return Ok(End::HandOver(request)),",
        new: r#"Some(mut request) = self.hand_overs.recv() => match request.to.take() {
            Some(heir) if std::env::var("UNPROTECTED").as_deref() == Ok("handover") => {
                let instance = self.instance.clone();
                tokio::spawn(async move {
                    let done = instance.promote(&heir).await;
                    let failed = |reason| HandOverError::Failed { to: heir.clone(), reason };
                    request.tell(done.map(|()| heir.clone()).map_err(failed));
                });
            }
            to => return Ok(End::HandOver(HandOver { to, ..request })),
        },"#,
    },
    Edit {
        file: "src/instance/confirm.rs",
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
            confirm: "off",
            strike: strike(|scene| Box::pin(processes::kill_unreplicated(scene, 100))),
        },
        Breach {
            name: "breach_handover",
            protection: "the hand-over's halt, and its wait for the last transaction",
            shows: Violation::Noticed,
            switch: Switch::Source("handover"),
            confirm: "available",
            strike: strike(|scene| Box::pin(processes::hand_over_until_it_hurts(scene))),
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
                    network::slow_down(scene, sydney, FAR);
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

/// Runs it, and fails if what has to be seen is not, or anything else is.
pub async fn try_out(breach: &Breach, seed: u64) -> Result<()> {
    let confirm = ("CONFIRM_WRITES", breach.confirm);
    let (program, switch) = match breach.switch {
        Switch::Environment(name, value) => (None, (name, value)),
        Switch::Source(value) => (Some(build()?), ("UNPROTECTED", value)),
    };
    let environment = [confirm, switch].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let application = Application { program, environment, volume_size: None };
    let outcome = run(&breach.strike, application, seed).await?;
    let found = violations(&outcome.verdict);
    let expected = BTreeSet::from([breach.shows]);
    let expected: BTreeSet<Violation> =
        expected.into_iter().filter(|shows| !BY_PRODUCTS.contains(shows)).collect();
    let is_shown = match breach.shows {
        Violation::Waiting => outcome.verdict.waits_in_vain() > 0,
        Violation::Noticed => outcome.verdict.failed_first_tries > 0,
        _ => true,
    };
    ensure!(
        is_shown && found == expected,
        "without {}, {} has to be seen; found: {found:?}\n{:#?}\n{}",
        breach.protection,
        breach.shows,
        outcome.verdict,
        outcome.logs
    );
    Ok(())
}

/// What other violations bring with them, and some faults by themselves: a visitor of a lost click waits for it.
const BY_PRODUCTS: [Violation; 2] = [Violation::Waiting, Violation::Noticed];

/// What is never allowed.
fn violations(verdict: &Verdict) -> BTreeSet<Violation> {
    let seen = [
        (verdict.counted_twice + verdict.answered_differently, Violation::CountedTwice),
        (verdict.lost + verdict.lost_alone, Violation::Lost),
        (verdict.own_click_missing, Violation::OwnClickMissing),
    ];
    seen.into_iter().filter(|(count, _)| *count > 0).map(|(_, violation)| violation).collect()
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
