//! LiteFS's configuration, read as LiteFS reads it (v0.5.14): the same file, the same variables.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use crate::tree::Node;

/// Where LiteFS keeps its data unless it is told.
pub const DATA: &str = "/var/lib/litefs";
/// What it mounts unless it is told.
pub const MOUNT: &str = "/litefs";
/// Where it looks for its configuration last.
pub const SYSTEM: &str = "/etc/litefs.yml";

/// The file, with its variables replaced.
#[derive(Clone, Debug)]
pub struct LiteFsYml {
    pub(crate) root: Node,
}

impl LiteFsYml {
    /// Reads the file that this command would read.
    pub fn find(words: &[OsString], variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let path = path(words).context("there is no litefs.yml")?;
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_raw = words.iter().any(|word| word == "-no-expand-env" || word == "--no-expand-env");
        let text = if is_raw { text } else { expand(&text, variable) };
        Self::of(&text).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Reads the text of one, with these variables.
    pub fn read(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        Self::of(&expand(text, variable))
    }

    fn of(text: &str) -> Result<Self> {
        Node::of_yaml(text).map(|root| Self { root }).map_err(|reason| anyhow!(reason))
    }

    /// What is under a key, such as `lease.consul.url`. What is empty is not there.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.root.text_at(key)
    }

    /// The same for a flag.
    #[must_use]
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.root.at(key)?.flag()
    }

    /// Whether a node with this configuration may become primary.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        self.flag("lease.candidate") != Some(false)
    }

    /// Where LiteFS keeps its data.
    #[must_use]
    pub fn data(&self) -> &str {
        self.text("data.dir").unwrap_or(DATA)
    }

    /// What LiteFS mounts.
    #[must_use]
    pub fn mount(&self) -> &str {
        self.text("fuse.dir").unwrap_or(MOUNT)
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

/// This machine's name, as LiteFS takes it where it is told none.
#[must_use]
pub fn hostname() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned())
}

/// Replaces `$NAME`, `${NAME}` and `${A == 'b'}` as LiteFS does; what is not known is empty.
#[must_use]
pub fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
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
