//! What is wrong in litefs.yml, as LiteFS reads it.

use std::path::Path;

use super::{
    deployment::{CONSUL_URL, Deployment, FLY_TOML, LITEFS_YML, SOME_REGION},
    image::{Image, is_script},
    keys,
    report::{Place, Report},
};
use crate::tree::Node;

/// Programs that stand between LiteFS and what they start, unless they are told to `exec` it.
const SHELLS: [&str; 5] = ["sh", "bash", "ash", "dash", "zsh"];
/// Programs that become what they start.
const BECOMES: [&str; 8] = ["exec", "env", "setpriv", "su-exec", "gosu", "nice", "chpst", "tini"];

impl Deployment {
    pub(super) fn examine_litefs(&self, report: &mut Report) {
        keys::examine(&self.litefs.root, report);
        self.proxy(report);
        self.database(report);
        self.lease(report);
        self.consul(report);
        self.exec(report);
        self.variables(report);
    }

    /// A key in litefs.yml, and its line.
    fn place(&self, key: &str) -> Place {
        Place::of(LITEFS_YML).key(key).line(self.litefs.root.at(key).map(|node| node.line))
    }

    fn proxy(&self, report: &mut Report) {
        let text = |key| self.litefs.text(key);
        let Some(target) = text("proxy.target") else {
            report.find(
                "proxy-missing",
                self.place("proxy"),
                "LiteFS starts no proxy without proxy.target: nobody sets the cookie __txid, so a visitor on a replica does \
                 not see their own writes, and nobody hands writes to the primary.",
                "Give proxy.addr, proxy.target and proxy.db.",
            );
            return;
        };
        match text("proxy.db") {
            None => report.find(
                "proxy-db-missing",
                self.place("proxy.db"),
                "LiteFS does not start its proxy without the database's name, and ends.",
                "Give proxy.db the database's bare file name, such as sqlite.db.",
            ),
            Some(path) if path.contains('/') => report.find(
                "proxy-db-path",
                self.place("proxy.db"),
                format!(
                    "The proxy looks for a database called {path}, and there is none: it never sets the cookie __txid and \
                     says nothing about it. A visitor on a replica does not see their own writes."
                ),
                format!("Give the bare file name: {}.", file_name(path)),
            ),
            Some(name) => {
                let opened = self.template.variable("DATABASE_URL");
                if let Some(file) = opened.as_deref().map(path_of).map(file_name)
                    && file != name
                {
                    report.find(
                        "proxy-db-other",
                        self.place("proxy.db"),
                        format!(
                            "The proxy watches {name}, the application opens {file}: the cookie __txid counts another \
                             database's transactions, or is never set."
                        ),
                        format!("Give the name of the file that DATABASE_URL names: {file}."),
                    );
                }
            }
        }
        let addr = text("proxy.addr");
        if port(target).is_some() && port(target) == addr.and_then(port) {
            report.find(
                "proxy-target-itself",
                self.place("proxy.target"),
                format!("The proxy hands on to {target}, which is its own port."),
                "Have the application listen on a port of its own, and name that one.",
            );
        }
        if let Some(lag) = text("proxy.max-lag").filter(|lag| keys::seconds(lag).is_some_and(|lag| lag > 0.0))
            && !self.is_litefs_health_asked()
        {
            report.find(
                "max-lag",
                self.place("proxy.max-lag"),
                format!(
                    "A limit of {lag} bounds no read. It only has /litefs/health fail beyond it, which no check here asks \
                     for."
                ),
                "Leave it out: a read waits for the cookie's transaction, whatever the lag.",
            );
        }
    }

    fn database(&self, report: &mut Report) {
        let mount = self.litefs.mount();
        let data = self.litefs.data();
        if Path::new(mount) == Path::new(data) {
            report.find(
                "data-in-mount",
                self.place("data.dir"),
                format!("LiteFS's own data and its mount are both {data}: it does not start."),
                "Give data.dir a directory of the volume, and fuse.dir one of its own.",
            );
        }
        let Some(url) = self.template.variable("DATABASE_URL") else {
            report.leave_out(
                "where the application's database is: DATABASE_URL is not set in Dockerfile or fly.toml",
            );
            return;
        };
        let path = path_of(&url);
        if Path::new(path).parent() != Some(Path::new(mount)) {
            report.find(
                "database-outside",
                self.environment_place("DATABASE_URL"),
                format!("DATABASE_URL names {path}, which is not directly in LiteFS's mount, {mount}: it is not replicated."),
                format!("Name {}/{}.", mount.trim_end_matches('/'), file_name(path)),
            );
        }
    }

    fn lease(&self, report: &mut Report) {
        if self.litefs.flag("lease.promote") == Some(true) {
            report.find(
                "lease-promote",
                self.place("lease.promote"),
                "At each start, every deploy's as well, a candidate takes the lease from a primary that is still \
                 writing: writes that were acknowledged are lost.",
                "Leave it out. The application writes and migrates where it is primary.",
            );
        }
        match self.litefs.text("lease.type") {
            Some("consul") => {}
            Some("static") => {
                report.find(
                    "lease-static",
                    self.place("lease.type"),
                    "With a static lease there is one primary for ever: when it is away, nobody can write.",
                    "Use `consul`, and run `fly consul attach`.",
                );
                return;
            }
            other => {
                let cause = format!(
                    "LiteFS knows the types consul and static, not {}, and does not start.",
                    other.unwrap_or("none")
                );
                report.find("lease-type", self.place("lease.type"), cause, "Use `consul`.");
                return;
            }
        }
        let region = self.template.primary_region();
        let can_be_primary = self.litefs.is_candidate();
        if !can_be_primary && self.fly.is_some() {
            let (place, cause) = if let Some(region) = region {
                let cause = format!("A machine in {region}, the primary region, is no candidate");
                (self.place("lease.candidate"), cause)
            } else {
                let cause = "fly.toml names no primary_region, so that PRIMARY_REGION is not set and no machine is a candidate";
                (Place::of(FLY_TOML).key("primary_region"), cause.to_owned())
            };
            report.find(
                "no-candidate",
                place,
                format!("{cause}: nobody becomes primary, and LiteFS waits for one for ever."),
                "In fly.toml name primary_region, in litefs.yml write candidate: ${FLY_REGION == PRIMARY_REGION}, and run \
                 two machines in that region.",
            );
        }
        let machines = ["some-machine", "another-machine"];
        let [one, other] = machines.map(|machine| {
            let litefs = self.template.litefs_at(region.unwrap_or(SOME_REGION), machine).ok()?;
            Some(litefs.text("lease.advertise-url").unwrap_or_default().to_owned())
        });
        if one == other && self.fly.is_some() {
            report.find(
                "advertise-url-shared",
                self.place("lease.advertise-url"),
                format!(
                    "Each machine says that it is found at \"{}\": replicas do not find the primary.",
                    one.unwrap_or_default()
                ),
                "Write http://${HOSTNAME}.vm.${FLY_APP_NAME}.internal:20202.",
            );
        }
    }

    fn consul(&self, report: &mut Report) {
        if self.litefs.text("lease.type") != Some("consul") {
            return;
        }
        if self.litefs.text("lease.consul.url").is_none() {
            report.find(
                "consul-url-missing",
                self.place("lease.consul.url"),
                format!("It is empty: {CONSUL_URL} is not set. LiteFS does not start, and the deploy's health checks fail."),
                "Run `fly consul attach`, which sets it as a secret, and write url: \"${FLY_CONSUL_URL}\".",
            );
        }
        let Some(key) = self.litefs.text("lease.consul.key") else {
            report.find(
                "consul-key-missing",
                self.place("lease.consul.key"),
                "LiteFS does not start without the lease's key.",
                "Write key: \"litefs/${FLY_APP_NAME}\".",
            );
            return;
        };
        let elsewhere = self.template.litefs_of_app("another-app");
        let app = self.template.variable("FLY_APP_NAME").unwrap_or_default();
        if elsewhere.is_ok_and(|litefs| litefs.text("lease.consul.key") == Some(key)) && !key.contains(&app) {
            report.find(
                "consul-key-shared",
                self.place("lease.consul.key"),
                format!(
                    "The key {key} does not carry the application's name. Two applications (staging is one) on the same \
                     Consul would elect one primary together, and one of them could never write."
                ),
                "Write key: \"litefs/${FLY_APP_NAME}\".",
            );
        }
    }

    fn exec(&self, report: &mut Report) {
        let commands = self.litefs.root.at("exec").map(Node::items).unwrap_or_default();
        let commands: Vec<(&str, usize)> = commands
            .into_iter()
            .filter_map(|node| Some((node.text().or_else(|| node.text_at("cmd"))?, node.line)))
            .collect();
        let place = |line| Place::of(LITEFS_YML).key("exec").line(Some(line));
        let main = self.image.as_ref().map(Image::main).unwrap_or_default();
        // What stands after `--` takes exec's place.
        if main.iter().any(|word| word == "--") {
            return;
        }
        let Some(((last, line), before)) = commands.split_last() else {
            report.find(
                "exec-missing",
                Place::of(LITEFS_YML).key("exec"),
                "LiteFS starts no application: it would run beside LiteFS, whether or not there is a mount.",
                "Have `exec` start it.",
            );
            return;
        };
        for (command, line) in before {
            let lower = command.to_lowercase();
            if lower.contains("migrat") || lower.contains("journal_mode") {
                report.find(
                    "exec-migration",
                    place(*line),
                    format!(
                        "`{command}` runs before the application, on nodes that are no primary as well: it cannot write \
                         there, and LiteFS ends. With `if-candidate` it still runs on the candidate that is none."
                    ),
                    "Have the application migrate once it is primary.",
                );
            }
        }
        match behind_a_shell(last) {
            Shell::None => {}
            Shell::Script(script) => report.leave_out(format!(
                "whether {script} (exec in litefs.yml) ends with `exec`, so that signals reach the application"
            )),
            Shell::Between => report.find(
                "exec-shell",
                place(*line),
                "There is a shell between LiteFS and the application. It does not hand on the signal that Fly sends: the \
                 application does not hand over, and LiteFS waits for it until it is killed.",
                "Start the application itself, or with `exec` in the shell's command.",
            ),
        }
    }

    fn variables(&self, report: &mut Report) {
        for name in self.template.overridden() {
            report.leave_out(format!(
                "{name} as it is: there is a secret of that name, which wins over the files"
            ));
        }
        for (name, line) in self.template.unset() {
            if name == CONSUL_URL {
                // Which is told as what it leads to.
            } else if self.template.secrets.is_some() || self.fly.is_none() {
                report.find(
                    "variable-unset",
                    Place::of(LITEFS_YML).key(&name).line(Some(line)),
                    format!("Nothing sets {name}: LiteFS takes it as empty."),
                    "Set it in the Dockerfile, in fly.toml's [env], or as a secret.",
                );
            } else {
                report.leave_out(format!(
                    "{name}, in line {line} of litefs.yml: nothing sets it, unless it is a secret (fly secrets list --json)"
                ));
            }
        }
    }

    /// Where a variable is set.
    fn environment_place(&self, name: &str) -> Place {
        let key = format!("env.{name}");
        if let Some(node) = self.fly.as_ref().and_then(|fly| fly.at(&key)) {
            return Place::of(FLY_TOML).key(key).line(Some(node.line));
        }
        let image = self.image.as_ref().filter(|image| image.environment.contains_key(name));
        Place::of(image.map_or("environment", |image| &image.name)).key(name)
    }
}

enum Shell {
    None,
    Between,
    Script(String),
}

fn behind_a_shell(command: &str) -> Shell {
    let words: Vec<&str> = command.split_whitespace().collect();
    let is_passed =
        |word: &&&str| word.starts_with('-') || word.contains('=') || BECOMES.contains(&file_name(word));
    let passed = words.iter().take_while(is_passed).count();
    let Some(program) = words.get(passed) else { return Shell::None };
    if is_script(program) {
        return Shell::Script((*program).to_owned());
    }
    if !SHELLS.contains(&file_name(program)) {
        return Shell::None;
    }
    let rest = &words[passed + 1..];
    match rest.iter().position(|word| word.starts_with('-') && word.ends_with('c')) {
        Some(at) if rest[at + 1..].join(" ").contains("exec ") => Shell::None,
        Some(_) => Shell::Between,
        None => rest.first().map_or(Shell::Between, |script| Shell::Script((*script).to_owned())),
    }
}

/// The port of `:8080`, `localhost:8081` or `http://localhost:8081`.
pub(super) fn port(address: &str) -> Option<u16> {
    address.trim_end_matches('/').rsplit_once(':')?.1.parse().ok()
}

/// The path in `sqlite:///litefs/db`, `file:/litefs/db?mode=rw` or `/litefs/db`.
fn path_of(url: &str) -> &str {
    let path = url.split('?').next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, path)| path);
    path.strip_prefix("file:").or_else(|| path.strip_prefix("sqlite:")).unwrap_or(path)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
