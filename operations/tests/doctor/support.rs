//! The project's own files, with mistakes put into them.

use std::{collections::BTreeMap, fs, path::Path};

use operations::doctor::{self, Surroundings, report::Report};
use tempfile::TempDir;

pub const LITEFS_YML: &str = "litefs.yml";
pub const FLY_TOML: &str = "fly.toml";
pub const DOCKERFILE: &str = "Dockerfile";

/// A deployment.
pub struct Example {
    pub dir: TempDir,
    pub url: Option<String>,
    pub here: Surroundings,
}

impl Example {
    /// A good one, on a developer's machine.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in [LITEFS_YML, FLY_TOML, DOCKERFILE] {
            fs::write(dir.path().join(file), Self::text(file)).unwrap();
        }
        let here = Surroundings { variables: BTreeMap::new(), fuse: "/no/such/device".into(), input: None };
        Self { dir, url: None, here }
    }

    /// The project's own.
    pub fn text(file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Puts something in place of a text that has to be there.
    pub fn with(self, file: &str, text: &str, other: &str) -> Self {
        let path = self.dir.path().join(file);
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.contains(text), "{file} has no {text:?}");
        fs::write(path, before.replacen(text, other, 1)).unwrap();
        self
    }

    pub fn with_input(mut self, input: impl Into<String>) -> Self {
        self.here.input = Some(Ok(input.into()));
        self
    }

    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    pub fn examine(&self) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(doctor::run(self.dir.path(), self.url.as_deref(), &self.here))
    }

    /// Exactly this is found.
    pub fn finds(&self, id: &str) -> Report {
        let report = self.examine();
        let found: Vec<_> = report.findings.iter().map(|finding| finding.id).collect();
        assert_eq!(found, [id], "{report}");
        assert_eq!(report.status(), 1, "{report}");
        report
    }

    /// Nothing is.
    pub fn is_well(&self) -> Report {
        let report = self.examine();
        assert_eq!(report.status(), 0, "{report}");
        report
    }
}
