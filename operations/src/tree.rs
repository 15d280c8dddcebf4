//! A configuration file, YAML or TOML, as values that know the line that they stand on.
//!
//! Nothing that a file may hold ends in a panic or in much work: there is a limit to the depth, and none of YAML's aliases.

use toml::de::{DeTable, DeValue};
use yaml_rust2::{
    Event,
    parser::Parser,
    scanner::{Marker, TScalarStyle},
};

/// No configuration is this deep.
const DEEPEST: usize = 32;

/// A value.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where its key stands, or itself if it has none; from 1.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text, a number, a flag. What is quoted is a text, whatever it looks like.
    Scalar {
        /// As it is written, without quotes.
        text: String,
        /// Whether it had any.
        is_quoted: bool,
    },
    /// Values in order.
    List(Vec<Node>),
    /// Values with keys, in order.
    Table(Vec<(String, Node)>),
}

impl Node {
    /// Reads YAML's first document, which has to be a table. An error tells a place and no text: there may be a token in it.
    pub fn of_yaml(text: &str) -> Result<Self, String> {
        let mut parser = Parser::new_from_str(text);
        let mut reader = YamlReader::default();
        let root = loop {
            let (event, at) = parser.next_token().map_err(|error| error.to_string())?;
            if matches!(event, Event::DocumentEnd | Event::StreamEnd) {
                break reader.root;
            }
            reader.read(event, at)?;
        };
        match root {
            Some(root) if matches!(root.value, Value::Table(_)) => Ok(root),
            Some(root) if root.text().is_some() => Err("it has no keys".to_owned()),
            Some(Self { value: Value::List(_), .. }) => Err("it is a list: it has no keys".to_owned()),
            _ => Err("it is empty".to_owned()),
        }
    }

    /// Reads TOML.
    pub fn of_toml(text: &str) -> Result<Self, String> {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            format!("{} at line {}", error.message().replace('\n', ", "), line(at))
        })?;
        Ok(toml_table(table.get_ref(), 1, &line))
    }

    /// What is under a key, such as `lease.consul.url`.
    #[must_use]
    pub fn at(&self, key: &str) -> Option<&Self> {
        key.split('.').try_fold(self, |node, part| {
            let Value::Table(entries) = &node.value else { return None };
            entries.iter().find_map(|(name, value)| (name == part).then_some(value))
        })
    }

    /// What is under a key, as it is written. What is empty is not there.
    #[must_use]
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.at(key)?.text()
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let Value::Scalar { text, is_quoted } = &self.value else { return None };
        let is_nothing =
            text.is_empty() || (!is_quoted && matches!(text.as_str(), "~" | "null" | "Null" | "NULL"));
        (!is_nothing).then_some(text)
    }

    /// Yes or no, as LiteFS's YAML reads it. What is quoted is neither.
    #[must_use]
    pub fn flag(&self) -> Option<bool> {
        let Value::Scalar { text, is_quoted: false } = &self.value else { return None };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => None,
        }
    }

    /// A list's values; of anything else, itself: `[mounts]` is meant as `[[mounts]]`.
    #[must_use]
    pub fn items(&self) -> Vec<&Self> {
        match &self.value {
            Value::List(items) => items.iter().collect(),
            _ => vec![self],
        }
    }

    /// A table's keys and values.
    #[must_use]
    pub fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }
}

/// Puts a document's events together.
#[derive(Default)]
struct YamlReader {
    open: Vec<(Node, Option<(String, usize)>)>,
    root: Option<Node>,
}

impl YamlReader {
    fn read(&mut self, event: Event, at: Marker) -> Result<(), String> {
        let line = at.line();
        match event {
            Event::Scalar(text, style, ..) => {
                let is_quoted = style != TScalarStyle::Plain;
                self.take(Node { line, value: Value::Scalar { text, is_quoted } })
            }
            Event::MappingStart(..) => self.open(Node { line, value: Value::Table(Vec::new()) }),
            Event::SequenceStart(..) => self.open(Node { line, value: Value::List(Vec::new()) }),
            Event::MappingEnd | Event::SequenceEnd => match self.open.pop() {
                Some((node, _)) => self.take(node),
                None => Ok(()),
            },
            Event::Alias(_) => Err(format!("aliases are not read, such as at line {line}")),
            _ => Ok(()),
        }
    }

    fn open(&mut self, node: Node) -> Result<(), String> {
        if self.open.len() == DEEPEST {
            return Err(format!("it is more than {DEEPEST} values deep at line {}", node.line));
        }
        self.open.push((node, None));
        Ok(())
    }

    fn take(&mut self, node: Node) -> Result<(), String> {
        let Some((parent, key)) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.value, key.take()) {
            (Value::Table(entries), Some((name, line))) => {
                if entries.iter().any(|(known, _)| *known == name) {
                    return Err(format!("a key is there for the second time at line {line}"));
                }
                entries.push((name, Node { line, ..node }));
            }
            (Value::Table(_), None) => match node.value {
                Value::Scalar { text, .. } => *key = Some((text, node.line)),
                _ => return Err(format!("a key is no text at line {}", node.line)),
            },
            (Value::List(items), _) => items.push(node),
            (Value::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn toml_table(table: &DeTable, line: usize, line_of: &impl Fn(usize) -> usize) -> Node {
    let entries = table.iter().map(|(name, value)| {
        let line = line_of(name.span().start);
        (name.get_ref().clone().into_owned(), toml_value(value.get_ref(), line, line_of))
    });
    Node { line, value: Value::Table(entries.collect()) }
}

fn toml_value(value: &DeValue, line: usize, line_of: &impl Fn(usize) -> usize) -> Node {
    let scalar = |text: String| Node { line, value: Value::Scalar { text, is_quoted: value.is_str() } };
    match value {
        DeValue::String(text) => scalar(text.clone().into_owned()),
        DeValue::Integer(number) => scalar(number.to_string()),
        DeValue::Float(number) => scalar(number.to_string()),
        DeValue::Boolean(flag) => scalar(flag.to_string()),
        DeValue::Datetime(time) => scalar(time.to_string()),
        DeValue::Array(items) => {
            let items =
                items.iter().map(|item| toml_value(item.get_ref(), line_of(item.span().start), line_of));
            Node { line, value: Value::List(items.collect()) }
        }
        DeValue::Table(table) => toml_table(table, line, line_of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let yaml = Node::of_yaml("# said before\na:\n  b: 'x'\n  c: [1, yes]\nd:\n").unwrap();
        assert_eq!((yaml.text_at("a.b"), yaml.at("a.b").unwrap().line), (Some("x"), 3));
        assert_eq!(yaml.at("a.c").unwrap().items()[1].flag(), Some(true));
        assert_eq!((yaml.text_at("d"), yaml.at("d").unwrap().line), (None, 5));
        assert!(yaml.at("a.b.c").is_none());
        let toml = Node::of_toml("x = 5\n[a]\nb = true\n[[c]]\nd = 'off'\n").unwrap();
        assert_eq!((toml.text_at("x"), toml.at("a.b").unwrap().line), (Some("5"), 3));
        let item = toml.at("c").unwrap().items()[0].at("d").unwrap();
        assert_eq!((item.line, item.text(), item.flag()), (5, Some("off"), None));
    }

    #[test]
    fn what_is_no_configuration_is_an_error_that_tells_where() {
        let deep = "[".repeat(100_000);
        let lists = "- ".repeat(100_000);
        for (text, reason) in [
            ("", "empty"),
            ("# nothing\n", "empty"),
            ("a", "no keys"),
            ("- a", "a list"),
            ("a: [", "line 2"),
            ("a: 1\nb: 2\na: 3", "line 3"),
            ("a: &x 1\nb: *x", "line 2"),
            ("? [a]\n: b", "line 1"),
            (deep.as_str(), "line 1"),
            (lists.as_str(), "32 values deep"),
        ] {
            let error = Node::of_yaml(text).unwrap_err();
            assert!(error.contains(reason), "{text:.20}: {error}");
        }
        for (text, reason) in [("a = ", "line 1"), ("a = 1\n\na = 2", "line 3"), ("a: 1", "line 1")] {
            let error = Node::of_toml(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Node::of_toml(&format!("a = {deep}")).is_err());
    }
}
