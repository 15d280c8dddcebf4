//! What is deployed: the three files, with each variable as it will be there.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use super::{Surroundings, image::Image, report::Report};
use crate::{
    litefs_yml::{self, LiteFsYml, expand},
    tree::Node,
};

pub(super) const LITEFS_YML: &str = "litefs.yml";
pub(super) const FLY_TOML: &str = "fly.toml";
const DOCKERFILE: &str = "Dockerfile";

/// What Fly sets where `fly consul attach` was run.
pub(super) const CONSUL_URL: &str = "FLY_CONSUL_URL";
/// A machine that there is not, in a region that there is not: where it does not matter which.
const SOME_MACHINE: &str = "some-machine";
pub(super) const SOME_REGION: &str = "some-region";
/// What `litefs-counter launch` sets, for the LiteFS that it starts alone.
const LIFE: &str = "LAUNCH_ID";
const SOME_LIFE: &str = "some-life";
/// What stands for the value of a secret.
const SECRET: &str = "https://secret.invalid";

/// The files.
pub(super) struct Deployment {
    /// As a machine of the primary region gets it.
    pub(super) litefs: LiteFsYml,
    /// `None` on a machine, which has no such file.
    pub(super) fly: Option<Node>,
    /// The same.
    pub(super) image: Option<Image>,
    pub(super) template: Template,
}

/// litefs.yml before its variables are replaced, and who sets them.
pub(super) struct Template {
    text: String,
    environment: BTreeMap<String, String>,
    /// The secrets' names, where flyctl has told them.
    pub(super) secrets: Option<BTreeSet<String>>,
    is_here: bool,
}

impl Deployment {
    /// Reads what is there, and reports what is not. `None`: it cannot be examined.
    pub(super) fn read(
        dir: &Path,
        here: &Surroundings,
        secrets: Option<BTreeSet<String>>,
        report: &mut Report,
    ) -> Option<Self> {
        if here.is_machine() {
            return Self::of_this_machine(dir, here, report);
        }
        let fly = text(dir, FLY_TOML, report).and_then(|text| kept(Node::of_toml(&text), FLY_TOML, report));
        let at = |key| fly.as_ref().and_then(|fly| fly.text_at(key));
        let dockerfile = at("build.dockerfile").unwrap_or(DOCKERFILE).trim_start_matches('/');
        let arguments = fly.as_ref().and_then(|fly| fly.at("build.args")).map(texts).unwrap_or_default();
        let image = text(dir, dockerfile, report).and_then(|text| {
            kept(Image::read(dockerfile, &text, at("build.build-target"), &arguments), dockerfile, report)
        });
        let elsewhere = image.as_ref().and_then(|image| image.source_of(LITEFS_YML));
        let yml = elsewhere.filter(|_| !dir.join(LITEFS_YML).exists()).unwrap_or(LITEFS_YML);
        let yml = &yml.trim_start_matches('/').to_owned();
        let text = text(dir, yml, report);
        let (fly, image, text) = (fly?, image?, text?);
        let environment = environment(&fly, &image);
        let template = Template { text, environment, secrets, is_here: false };
        let litefs = template.litefs_at(template.primary_region().unwrap_or(SOME_REGION), SOME_MACHINE);
        let litefs = kept(litefs, yml, report)?;
        Some(Self { litefs, fly: Some(fly), image: Some(image), template })
    }

    fn of_this_machine(dir: &Path, here: &Surroundings, report: &mut Report) -> Option<Self> {
        let system = Path::new(litefs_yml::SYSTEM).parent().unwrap_or(dir);
        let dir = if dir.join(LITEFS_YML).exists() { dir } else { system };
        let text = text(dir, LITEFS_YML, report)?;
        let mut environment = here.variables.clone();
        environment.entry(LIFE.to_owned()).or_insert_with(|| SOME_LIFE.to_owned());
        let litefs = LiteFsYml::read(&text, |name| environment.get(name).cloned());
        let litefs = kept(litefs.map_err(|error| error.to_string()), LITEFS_YML, report)?;
        report.leave_out("fly.toml and Dockerfile, which are not on a machine: run doctor where they are");
        let template = Template { text, environment, secrets: None, is_here: true };
        Some(Self { litefs, fly: None, image: None, template })
    }
}

impl Template {
    /// litefs.yml as a machine in a region gets it.
    pub(super) fn litefs_at(&self, region: &str, machine: &str) -> Result<LiteFsYml, String> {
        LiteFsYml::read(&self.text, |name| match name {
            "FLY_REGION" => Some(region.to_owned()),
            "HOSTNAME" | "FLY_MACHINE_ID" | "FLY_ALLOC_ID" => Some(machine.to_owned()),
            _ => self.variable(name),
        })
        .map_err(|error| error.to_string())
    }

    /// The same for another application with the same files.
    pub(super) fn litefs_of_app(&self, app: &str) -> Result<LiteFsYml, String> {
        let variable = |name: &str| {
            if name == "FLY_APP_NAME" { Some(app.to_owned()) } else { self.variable(name) }
        };
        LiteFsYml::read(&self.text, variable).map_err(|error| error.to_string())
    }

    /// Whether a machine of that region may become primary.
    pub(super) fn is_candidate(&self, region: &str) -> bool {
        self.litefs_at(region, SOME_MACHINE).is_ok_and(|litefs| litefs.is_candidate())
    }

    pub(super) fn primary_region(&self) -> Option<&str> {
        self.environment.get("PRIMARY_REGION").map(String::as_str)
    }

    /// A variable on a machine. Secrets have values that are not theirs; nobody tells these.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let secret = || self.is_secret(name).then(|| SECRET.to_owned());
        self.environment.get(name).cloned().or_else(secret)
    }

    /// Secrets that are variables of the files as well. They win, and are not known.
    pub(super) fn overridden(&self) -> impl Iterator<Item = &String> {
        self.secrets.iter().flatten().filter(|name| self.environment.contains_key(*name))
    }

    fn is_secret(&self, name: &str) -> bool {
        match &self.secrets {
            _ if self.is_here => false,
            Some(secrets) => secrets.contains(name),
            None => name == CONSUL_URL,
        }
    }

    /// The variables in litefs.yml that nothing sets, and the line of each.
    pub(super) fn unset(&self) -> Vec<(String, usize)> {
        let mut unset = Vec::new();
        for (at, line) in
            self.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'))
        {
            let asked = RefCell::new(Vec::new());
            let _ = expand(line, |name| {
                asked.borrow_mut().push(name.to_owned());
                None
            });
            let names = asked.into_inner().into_iter().filter(|name| {
                let is_of_a_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
                let is_set = self.variable(name).is_some() || SET_ON_A_MACHINE.contains(&name.as_str());
                !name.is_empty() && name.chars().all(is_of_a_name) && !is_set
            });
            unset.extend(names.map(|name| (name, at + 1)));
        }
        unset
    }
}

/// What differs from machine to machine.
const SET_ON_A_MACHINE: [&str; 8] = [
    "FLY_REGION",
    "HOSTNAME",
    "FLY_MACHINE_ID",
    "FLY_ALLOC_ID",
    "FLY_PRIVATE_IP",
    "FLY_PUBLIC_IP",
    "FLY_IMAGE_REF",
    "FLY_PROCESS_GROUP",
];

/// What a machine's processes find, except for secrets and what differs from machine to machine.
fn environment(fly: &Node, image: &Image) -> BTreeMap<String, String> {
    let mut environment = image.environment.clone();
    environment.extend(fly.at("env").map(texts).unwrap_or_default());
    for (variable, key) in [("FLY_APP_NAME", "app"), ("PRIMARY_REGION", "primary_region")] {
        // Without an application's name in the file, `fly deploy --app` gives it.
        let value = fly.text_at(key).or((key == "app").then_some("some-app"));
        environment.extend(value.map(|value| (variable.to_owned(), value.to_owned())));
    }
    if image.main().get(1).is_some_and(|word| word == "launch") {
        environment.insert(LIFE.to_owned(), SOME_LIFE.to_owned());
    }
    environment
}

fn texts(table: &Node) -> BTreeMap<String, String> {
    let entries = table.items().into_iter().flat_map(Node::entries);
    entries.filter_map(|(name, value)| Some((name.clone(), value.text()?.to_owned()))).collect()
}

fn text(dir: &Path, name: &str, report: &mut Report) -> Option<String> {
    let read = fs::read_to_string(dir.join(name));
    let reason = match read {
        Ok(text) => return Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("{name} is not in {}", dir.display())
        }
        Err(error) => format!("{name} in {} cannot be read: {error}", dir.display()),
    };
    report.cannot_check(reason);
    None
}

fn kept<T>(parsed: Result<T, String>, name: &str, report: &mut Report) -> Option<T> {
    parsed.map_err(|reason| report.cannot_check(format!("{name} cannot be read: {reason}"))).ok()
}
