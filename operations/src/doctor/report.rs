//! What the doctor found, for people and for programs.

use std::fmt;

use serde::Serialize;

/// The result of an examination.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be examined although it was asked for: a file that is missing, a process that does not answer.
    pub not_checkable: Vec<String>,
    /// What was not examined, and what would tell it. It makes no deployment a bad one.
    pub not_checked: Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Its name, which does not change.
    pub id: &'static str,
    /// The file, or who said it.
    pub source: String,
    /// The key there, such as `proxy.db`.
    pub key: Option<String>,
    /// The line there, from 1.
    pub line: Option<usize>,
    /// What is wrong, and what comes of it.
    pub cause: String,
    /// What to do.
    pub mend: String,
}

/// Where something is wrong.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: String,
    pub(super) key: Option<String>,
    pub(super) line: Option<usize>,
}

impl Place {
    /// As a whole.
    pub(super) fn of(source: impl Into<String>) -> Self {
        Self { source: source.into(), key: None, line: None }
    }

    pub(super) fn key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    pub(super) fn line(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }
}

impl Report {
    pub(super) fn find(
        &mut self,
        id: &'static str,
        place: Place,
        cause: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let Place { source, key, line } = place;
        self.findings.push(Finding { id, source, key, line, cause: cause.into(), mend: mend.into() });
    }

    pub(super) fn leave_out(&mut self, what: impl Into<String>) {
        self.not_checked.push(what.into());
    }

    pub(super) fn cannot_check(&mut self, what: impl Into<String>) {
        self.not_checkable.push(what.into());
    }

    /// The process's: 0, nothing is wrong; 1, something is; 2, what was asked for could not be examined.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self { not_checkable, .. } if !not_checkable.is_empty() => 2,
            Self { findings, .. } if !findings.is_empty() => 1,
            _ => 0,
        }
    }

    /// For programs. Fields may be added; those that are there stay.
    #[must_use]
    pub fn as_json(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            status: u8,
            #[serde(flatten)]
            report: &'a Report,
        }
        let document = Document { status: self.status(), report: self };
        serde_json::to_string_pretty(&document).expect("texts and numbers")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}\n")?;
        }
        for (title, lines) in [("Not checkable:", &self.not_checkable), ("Not checked:", &self.not_checked)] {
            if !lines.is_empty() {
                writeln!(f, "{title}\n  {}\n", lines.join("\n  "))?;
            }
        }
        match self.findings.len() {
            0 if self.not_checkable.is_empty() => write!(f, "Nothing wrong was found."),
            0 => write!(f, "Nothing wrong was found in what could be checked."),
            1 => write!(f, "1 finding."),
            many => write!(f, "{many} findings."),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, "  {key}")?;
        }
        write!(f, "  [{}]\n  {}\n  Mend: {}", self.id, self.cause, self.mend)
    }
}
