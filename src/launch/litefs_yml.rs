//! LiteFS's configuration, read as LiteFS reads it (v0.5.14): the same file, the same variables, the same defaults.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use reqwest::Url;
use yaml_rust2::{Yaml, YamlLoader};

use crate::instance::{ConsulKey, Holder};

/// Where LiteFS keeps its data unless it is told.
const DATA: &str = "/var/lib/litefs";
/// Where it looks for its configuration last.
const SYSTEM: &str = "/etc/litefs.yml";

/// The file, with its variables replaced.
pub struct LiteFsYml(Yaml);

/// What can hold a lease.
#[derive(Debug)]
pub struct Candidate {
    /// Where LiteFS's data is: the volume.
    pub data: PathBuf,
    /// The lease.
    pub key: ConsulKey,
    /// What LiteFS writes into it.
    pub holder: Holder,
}

impl LiteFsYml {
    /// Reads the file that this command would read.
    pub fn find(words: &[OsString], variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let path = path(words).context("there is no litefs.yml")?;
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let raw = words.iter().any(|word| word == "-no-expand-env" || word == "--no-expand-env");
        let text = if raw { text } else { expand(&text, variable) };
        Self::parse(&text).with_context(|| format!("cannot read {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        // Its errors tell places and no text: there may be a token in it.
        let documents = YamlLoader::load_from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self(documents.into_iter().next().context("it is empty")?))
    }

    /// How LiteFS holds its lease in Consul; `None` where it never does.
    pub fn consul(&self) -> Result<Option<Candidate>> {
        let lease = &self.0["lease"];
        if lease["type"].as_str() != Some("consul") || lease["candidate"].as_bool() == Some(false) {
            return Ok(None);
        }
        let text = |value: &Yaml| value.as_str().unwrap_or_default().to_owned();
        let own_name = || hostname().unwrap_or_default();
        let hostname =
            Some(text(&lease["hostname"])).filter(|name| !name.is_empty()).unwrap_or_else(own_name);
        let url = text(&lease["consul"]["url"]);
        // Without the URL, which has a token in it.
        let url: Url = url.parse().context("lease.consul.url is no URL: is FLY_CONSUL_URL set?")?;
        ensure!(
            matches!(url.scheme(), "http" | "https") && url.has_host(),
            "lease.consul.url is not http(s)://HOST"
        );
        let key = text(&lease["consul"]["key"]);
        ensure!(!key.is_empty(), "lease.consul.key is not set");
        let data = self.0["data"]["dir"].as_str().unwrap_or(DATA).into();
        let holder = Holder { hostname, advertise_url: text(&lease["advertise-url"]) };
        Ok(Some(Candidate { data, key: ConsulKey { url, key }, holder }))
    }
}

fn path(words: &[OsString]) -> Option<PathBuf> {
    let mut words = words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        match word.trim_start_matches('-').split_once('=') {
            Some(("config", path)) if word.starts_with('-') => return Some(path.into()),
            None if word == "-config" || word == "--config" => return words.next().map(PathBuf::from),
            _ => {}
        }
    }
    let home = env::var_os("HOME").map(|home| Path::new(&home).join("litefs.yml"));
    [Some("litefs.yml".into()), home, Some(SYSTEM.into())].into_iter().flatten().find(|path| path.exists())
}

fn hostname() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned())
}

/// Replaces `$NAME`, `${NAME}` and `${A == 'b'}` as LiteFS does; what is not known is empty.
fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let variable = |name: &str| {
        let value = variable(name).unwrap_or_default();
        // LiteFS sets this one where its environment does not.
        if name == "HOSTNAME" && value.is_empty() { hostname().unwrap_or_default() } else { value }
    };
    let mut parts = text.split('$');
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (expression, rest) = match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
            Some(braced) => braced,
            None => part.split_at(part.find(|c| !is_of_a_name(c)).unwrap_or(part.len())),
        };
        if expression.is_empty() && !part.starts_with("{}") {
            expanded.push('$');
        }
        expanded.push_str(&value(expression.trim(), &variable));
        expanded.push_str(rest);
    }
    expanded
}

/// A variable's value, or whether two are equal.
fn value(expression: &str, variable: &impl Fn(&str) -> String) -> String {
    let (left, rest) = expression.split_at(expression.find(|c| !is_of_a_name(c)).unwrap_or(expression.len()));
    let rest = rest.trim_start();
    let comparison = rest.strip_prefix("==").map(|right| (true, right));
    let Some((is_equal, right)) = comparison.or_else(|| Some((false, rest.strip_prefix("!=")?))) else {
        return variable(expression);
    };
    let right = right.trim_start();
    let quoted = |quote| right.strip_prefix(quote)?.strip_suffix(quote);
    let right = match quoted('\'').or_else(|| quoted('"')) {
        Some(text) => text.to_owned(),
        None => variable(right),
    };
    ((variable(left) == right) == is_equal).to_string()
}

fn is_of_a_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        let value = match name {
            "FLY_REGION" | "PRIMARY_REGION" => "sjc",
            "HOSTNAME" => "sjc-1",
            "FLY_APP_NAME" => "counter",
            "LAUNCH_ID" => "life-7",
            "FLY_CONSUL_URL" => "https://:secret@consul.example:8501/counter-x1/",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn variables_are_replaced_and_compared_as_litefs_does() {
        for (text, expected) in [
            ("a $HOSTNAME, b", "a sjc-1, b"),
            ("${HOSTNAME}.vm.${FLY_APP_NAME}.internal", "sjc-1.vm.counter.internal"),
            ("${ FLY_REGION == 'sjc' } ${FLY_REGION=='ams'}", "true false"),
            ("${ FLY_REGION != \"sjc\" } ${FLY_REGION != \"\"}", "false true"),
            ("${FLY_REGION == PRIMARY_REGION} ${FLY_REGION != PRIMARY_REGION}", "true false"),
            ("[${UNKNOWN}] [$UNKNOWN] [${}]", "[] [] []"),
            ("costs 5$, or $ 5", "costs 5$, or $ 5"),
            ("no variables", "no variables"),
        ] {
            assert_eq!(expand(text, known), expected, "{text}");
        }
    }

    #[test]
    fn this_repository_s_litefs_yml_tells_where_the_lease_is() {
        let read = |text: &str| LiteFsYml::parse(&expand(text, known)).unwrap().consul();
        let deployed = include_str!("../../litefs.yml");
        let candidate = read(deployed).unwrap().unwrap();
        assert_eq!(candidate.data, Path::new("/var/lib/litefs"));
        assert_eq!(candidate.key.key, "litefs/counter");
        assert_eq!(candidate.key.url.host_str(), Some("consul.example"));
        assert_eq!(candidate.holder.hostname, hostname().unwrap());
        assert_eq!(candidate.holder.advertise_url, "http://sjc-1.vm.counter.internal:20202/#life-7");
        let replica = deployed.replace("PRIMARY_REGION", "ELSEWHERE");
        assert!(read(&replica).unwrap().is_none());
        let nowhere = read(&deployed.replace("${FLY_CONSUL_URL}", "${UNKNOWN}")).unwrap_err();
        assert!(format!("{nowhere:#}").contains("FLY_CONSUL_URL"), "{nowhere:#}");
        let strange = read(&deployed.replace("${FLY_CONSUL_URL}", "ftp://:secret@x")).unwrap_err();
        assert!(!format!("{strange:#}").contains("secret"), "{strange:#}");
    }

    #[test]
    fn the_file_is_the_one_that_litefs_is_given() {
        let path = |words: &str| path(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        for words in [
            "litefs mount -config /a.yml",
            "litefs mount --config=/a.yml -- app",
            "litefs mount -config=/a.yml",
        ] {
            assert_eq!(path(words).unwrap(), Path::new("/a.yml"), "{words}");
        }
        assert_ne!(path("litefs mount -- app -config /a.yml"), Some("/a.yml".into()));
    }
}
