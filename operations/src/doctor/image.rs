//! The Dockerfile: what is in the image's environment, and what a machine starts.

use std::{collections::BTreeMap, path::Path};

use super::{
    dockerfile::{self, Instruction},
    report::{Place, Report},
};

/// What the last stage is, with the stages that it builds on.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) entrypoint: Option<Started>,
    pub(super) command: Option<Started>,
    /// The last stage's `FROM`.
    line: usize,
    user: Option<(String, usize)>,
    has_fuse3: bool,
    /// Where files of the build's context go.
    copies: Vec<(String, String)>,
}

/// An `ENTRYPOINT` or a `CMD`.
#[derive(Clone, Debug)]
pub(super) struct Started {
    pub(super) words: Vec<String>,
    pub(super) line: usize,
    is_shell: bool,
}

impl Image {
    /// Reads it. `target` is the stage to build, the last one where it is none.
    pub(super) fn read(
        name: &str,
        text: &str,
        target: Option<&str>,
        arguments: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let stages = stages(&dockerfile::read(text)?, arguments);
        let is_target =
            |stage: &&(Option<String>, Self)| target.is_some_and(|name| stage.0.as_deref() == Some(name));
        let stage = match target {
            Some(name) => stages.iter().find(is_target).ok_or_else(|| format!("it has no stage {name}"))?,
            None => stages.last().ok_or("it has no stage")?,
        };
        Ok(Self { name: name.to_owned(), ..stage.1.clone() })
    }

    /// Which file of the repository becomes this one, as far as its name tells.
    pub(super) fn source_of(&self, file: &str) -> Option<&str> {
        let is_it = |path: &str| path.rsplit('/').next() == Some(file);
        let copies = self.copies.iter().rev();
        copies
            .filter(|(from, to)| is_it(from) && (is_it(to) || to.ends_with('/')) || is_it(to))
            .map(|(from, _)| from.trim_start_matches("./"))
            .next()
    }

    /// What a machine starts first.
    pub(super) fn main(&self) -> Vec<String> {
        let words = |started: &Option<Started>| started.iter().flat_map(|s| s.words.clone()).collect();
        match &self.entrypoint {
            // The shell form takes no arguments from `CMD`.
            Some(Started { is_shell: true, words, .. }) => words.clone(),
            Some(started) => [started.words.clone(), words(&self.command)].concat(),
            None => words(&self.command),
        }
    }

    pub(super) fn examine(&self, report: &mut Report) {
        let place = |line| Place::of(&self.name).line(Some(line));
        if !self.has_fuse3 {
            report.find(
                "fuse-missing",
                place(self.line),
                "No fuse3 is installed in the image's last stage. LiteFS mounts with fusermount3 and ends without it.",
                "Install the package fuse3 there (Debian: apt-get install fuse3; Alpine: apk add fuse3).",
            );
        }
        if let Some((user, line)) = &self.user
            && !matches!(user.split(':').next(), Some("root" | "0"))
        {
            report.find(
                "litefs-not-root",
                place(*line),
                format!("LiteFS would run as {user}. On Fly it has to be root to mount."),
                "Leave USER out, and let `exec` in litefs.yml start the application as another user \
                 (setpriv, su-exec).",
            );
        }
        if let Some(started) = self.entrypoint.as_ref().or(self.command.as_ref())
            && started.is_shell
        {
            report.find(
                "entrypoint-shell",
                place(started.line),
                "The shell form starts LiteFS below /bin/sh, which may keep Fly's signal to itself: the primary would be \
                 killed in place of handing over.",
                format!("Write it as a list: {}.", as_list(&started.words)),
            );
        }
        let main = self.main();
        // This application's own command starts LiteFS, whatever the application is called.
        if main.iter().any(|word| word.contains("litefs") || word == "launch") {
            return;
        }
        if main.iter().any(|word| is_script(word)) {
            report.leave_out(format!("whether {} starts LiteFS, and with exec", main.join(" ")));
            return;
        }
        let line =
            self.entrypoint.as_ref().or(self.command.as_ref()).map_or(self.line, |started| started.line);
        report.find(
            "litefs-not-started",
            place(line),
            "The image starts something other than LiteFS: the database would be a plain file that is not replicated, or \
             missing.",
            "Start `litefs mount` (or what starts it), and the application from `exec` in litefs.yml.",
        );
    }
}

/// Whether it is a shell's, as far as its name tells.
pub(super) fn is_script(word: &str) -> bool {
    Path::new(word).extension().is_some_and(|extension| extension == "sh")
}

fn as_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// Each with what it has from those before it, and its name.
fn stages(
    instructions: &[Instruction],
    arguments: &BTreeMap<String, String>,
) -> Vec<(Option<String>, Image)> {
    let mut stages: Vec<(Option<String>, Image)> = Vec::new();
    // Those before the first FROM count in FROM alone.
    let mut build = BTreeMap::new();
    for instruction in instructions {
        let Instruction { line, name, flags, rest } = instruction;
        if name == "FROM" {
            let mut words = rest.split_whitespace();
            let base = words.next();
            let base = stages.iter().find(|(name, _)| name.as_deref() == base);
            let base = base.map(|(_, image)| image.clone()).unwrap_or_default();
            // After AS.
            let name = words.nth(1).map(str::to_owned);
            stages.push((name, Image { line: *line, ..base }));
            build = BTreeMap::new();
        }
        let Some((_, image)) = stages.last_mut() else { continue };
        let before = image.environment.clone();
        let known = |name: &str| before.get(name).or_else(|| build.get(name)).cloned();
        match name.as_str() {
            "ARG" => {
                for word in words(rest, &known) {
                    let (name, default) =
                        word.split_once('=').map_or((word.as_str(), None), |(n, d)| (n, Some(d)));
                    if let Some(value) = arguments.get(name).map(String::as_str).or(default) {
                        build.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
            "ENV" => image.environment.extend(variables(rest, &known)),
            "RUN" => image.has_fuse3 |= installs_fuse3(rest),
            "USER" => image.user = words(rest, &known).pop().map(|name| (name, *line)),
            "COPY" | "ADD" if !flags.iter().any(|flag| flag.starts_with("--from")) => {
                let paths = instruction
                    .list()
                    .unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
                if let Some((to, from)) = paths.split_last() {
                    image.copies.extend(from.iter().map(|from| (from.clone(), to.clone())));
                }
            }
            "ENTRYPOINT" => {
                image.entrypoint = Some(started(instruction));
                // A base's CMD is meant for that base's ENTRYPOINT.
                image.command = None;
            }
            "CMD" => image.command = Some(started(instruction)),
            _ => {}
        }
    }
    stages
}

/// The version 2 of FUSE, which is called fuse, is not enough.
fn installs_fuse3(run: &str) -> bool {
    run.split(|c: char| c.is_whitespace() || "=;&|\"'".contains(c)).any(|word| word == "fuse3")
}

fn started(instruction: &Instruction) -> Started {
    let list = instruction.list();
    let is_shell = list.is_none();
    let words = list.unwrap_or_else(|| instruction.rest.split_whitespace().map(str::to_owned).collect());
    Started { words, line: instruction.line, is_shell }
}

/// `A=1 B="2 3"`, or `A 1`, as it was written before there was `=`.
fn variables(arguments: &str, known: &impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let first = arguments.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let rest = arguments.trim_start().strip_prefix(first).unwrap_or_default().trim();
        return vec![(first.to_owned(), words(rest, known).join(" "))];
    }
    let pairs = words(arguments, known).into_iter();
    pairs.filter_map(|word| word.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))).collect()
}

/// Words as a shell has them: quotes taken off, variables filled in where they stand in no single quotes.
fn words(text: &str, known: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match (c, quote) {
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let escaped = rest.chars().next();
                rest = &rest[escaped.map_or(0, char::len_utf8)..];
                word.get_or_insert_default().extend(escaped);
            }
            ('$', None | Some('"')) => {
                let (value, after) = variable(rest, known);
                word.get_or_insert_default().push_str(&value);
                rest = after;
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What follows a `$`: `NAME`, `{NAME}`, `{NAME:-default}`, `{NAME:+instead}`. Returns its value and what comes after it.
fn variable<'a>(text: &'a str, known: &impl Fn(&str) -> Option<String>) -> (String, &'a str) {
    let is_of_a_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let Some((braced, after)) = text.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
        let (name, after) = text.split_at(text.find(|c| !is_of_a_name(c)).unwrap_or(text.len()));
        let value = if name.is_empty() { "$".to_owned() } else { known(name).unwrap_or_default() };
        return (value, after);
    };
    let (name, instead) = braced.split_at(braced.find(|c| !is_of_a_name(c)).unwrap_or(braced.len()));
    let value = known(name).filter(|value| !value.is_empty());
    let value = match (value, instead.strip_prefix(":-"), instead.strip_prefix(":+")) {
        (None, Some(default), _) => default.to_owned(),
        (Some(_), _, Some(instead)) => instead.to_owned(),
        (None, _, Some(_)) => String::new(),
        (value, _, _) => value.unwrap_or_default(),
    };
    (value, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Image {
        Image::read("Dockerfile", text, None, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn variables_are_filled_in_as_docker_does() {
        let image = read(
            "ARG OUTSIDE=no\nFROM a AS base\nENV DIR=/litefs\nFROM base\nARG NAME=x.db\n\
             ENV FILE=\"$DIR/${NAME}\" PLAIN='$DIR' OLD=${FILE:-none} A=\"b c\"\n\
             ENV NEW=${FILE} GONE=$OUTSIDE LEGACY=${NONE:-d} SET=${DIR:+yes}\nENV WORDS a  $DIR\nENV LONG=1 \\\n  LAST=2\n",
        );
        for (name, value) in [
            ("DIR", "/litefs"),
            ("FILE", "/litefs/x.db"),
            ("PLAIN", "$DIR"),
            ("OLD", "none"),
            ("A", "b c"),
            ("NEW", "/litefs/x.db"),
            ("GONE", ""),
            ("LEGACY", "d"),
            ("SET", "yes"),
            ("WORDS", "a /litefs"),
            ("LONG", "1"),
            ("LAST", "2"),
        ] {
            assert_eq!(image.environment[name], value, "{name}");
        }
    }

    #[test]
    fn a_stage_that_is_not_in_the_image_says_nothing() {
        let image =
            read("FROM a AS build\nENV A=1\nUSER x\nRUN apt-get install fuse3\nFROM b\nCMD [\"litefs\"]\n");
        assert!(image.environment.is_empty() && image.user.is_none() && !image.has_fuse3);
        assert_eq!(image.main(), ["litefs"]);
        let early = BTreeMap::new();
        let target = Image::read("Dockerfile", "FROM a AS b\nENV A=1\nFROM c\n", Some("b"), &early).unwrap();
        assert_eq!(target.environment["A"], "1");
        assert!(Image::read("Dockerfile", "FROM a\n", Some("b"), &early).unwrap_err().contains('b'));
    }
}
