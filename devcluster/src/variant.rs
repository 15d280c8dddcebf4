//! Other versions of an application, made of its source: a copy with more migrations, or with pieces of its text
//! replaced. So a test can deploy a next version, or take out what it wants to see missed, and the source itself has
//! no switches for tests.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::built_programs;

/// A copy that differs from the source by what is in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variant<'a> {
    /// What its program's name has behind that of the source's.
    pub name: &'a str,
    /// Migrations that are added: their file names and texts.
    pub migrations: &'a [(&'a str, &'a str)],
    /// Pieces of text that are replaced.
    pub edits: &'a [Edit<'a>],
}

/// One piece of text that is replaced by another.
#[derive(Debug, Clone, Copy)]
pub struct Edit<'a> {
    /// In this file, given from the checkout's top; it has to be in `src`.
    pub file: &'a str,
    /// What stands there, exactly once.
    pub old: &'a str,
    /// What stands there in the copy.
    pub new: &'a str,
}

impl Variant<'_> {
    /// Makes the copy, under `target`, and builds it. Returns its program, which stands beside the source's own.
    pub fn build(&self, repository: &Path) -> Result<PathBuf> {
        let copy = repository.join("target/variants").join(self.name);
        self.copy(repository, &copy).with_context(|| format!("the variant {}", self.name))?;
        let programs = built_programs();
        let build = Command::new(env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()))
            .args(["build", "--quiet", "--offline", "--target-dir"])
            .arg(programs.join(".."))
            .current_dir(&copy)
            .status();
        ensure!(build?.success(), "the variant {} does not build", self.name);
        Ok(programs.join(format!("litefs-counter-{}", self.name)))
    }

    fn copy(&self, repository: &Path, copy: &Path) -> Result<()> {
        for shared in ["static", "templates", "build.rs", "operations"] {
            let link = copy.join(shared);
            fs::create_dir_all(copy)?;
            let _ = fs::remove_file(&link);
            symlink(repository.join(shared), link)?;
        }
        let texts = self.texts(repository)?;
        remove_others(copy, Path::new("src"), &texts)?;
        remove_others(copy, Path::new("migrations"), &texts)?;
        for (file, text) in &texts {
            write(&copy.join(file), text)?;
        }
        // A copy, since Cargo takes out of it what this one package does not need.
        fs::copy(repository.join("Cargo.lock"), copy.join("Cargo.lock"))?;
        Ok(())
    }

    /// What differs or may differ, by its path in the checkout.
    fn texts(&self, repository: &Path) -> Result<Texts> {
        let mut texts = Texts::new();
        read(repository, Path::new("src"), &mut texts)?;
        read(repository, Path::new("migrations"), &mut texts)?;
        for (file, text) in self.migrations {
            texts.insert(Path::new("migrations").join(file), (*text).to_owned());
        }
        for Edit { file, old, new } in self.edits {
            let text = texts.get_mut(Path::new(file)).with_context(|| format!("there is no {file}"))?;
            let found = text.matches(old).count();
            ensure!(found == 1, "{file} has this {found} times instead of once: {old}");
            *text = text.replace(old, new);
        }
        let manifest = self.manifest(&fs::read_to_string(repository.join("Cargo.toml"))?)?;
        texts.insert("Cargo.toml".into(), manifest);
        Ok(texts)
    }

    /// A workspace of its own, and a name of its own, so that its program stands beside the other; the library keeps
    /// its name.
    fn manifest(&self, manifest: &str) -> Result<String> {
        let mut manifest: toml::Table = manifest.parse()?;
        let table = |value: Option<&mut toml::Value>| value.and_then(toml::Value::as_table_mut).cloned();
        let mut package = table(manifest.get_mut("package")).context("Cargo.toml has no [package]")?;
        let mut workspace = table(manifest.get_mut("workspace")).context("Cargo.toml has no [workspace]")?;
        let name = package.get("name").and_then(toml::Value::as_str).context("no package.name")?.to_owned();
        package.insert("name".to_owned(), format!("{name}-{}", self.name).into());
        workspace.insert("members".to_owned(), toml::Value::Array(Vec::new()));
        let library = toml::Table::from_iter([("name".to_owned(), name.replace('-', "_").into())]);
        manifest.insert("package".to_owned(), package.into());
        manifest.insert("workspace".to_owned(), workspace.into());
        manifest.insert("lib".to_owned(), library.into());
        Ok(toml::to_string(&manifest)?)
    }
}

type Texts = BTreeMap<PathBuf, String>;

fn read(repository: &Path, folder: &Path, texts: &mut Texts) -> Result<()> {
    for entry in fs::read_dir(repository.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read(repository, &path, texts)?;
        } else {
            texts.insert(path, fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

/// Removes what an earlier copy had besides.
fn remove_others(copy: &Path, folder: &Path, texts: &Texts) -> Result<()> {
    fs::create_dir_all(copy.join(folder))?;
    for entry in fs::read_dir(copy.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(copy, &path, texts)?;
        } else if !texts.contains_key(&path) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Leaves a file alone that is as it should be: Cargo compiles again what was written.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the checkout").to_owned()
    }

    fn copy(edits: &[Edit<'_>]) -> Result<String> {
        let folder = tempfile::tempdir()?;
        Variant { name: "test", migrations: &[("0000_x.sql", "select 1;")], edits }
            .copy(&repository(), folder.path())?;
        assert!(folder.path().join("migrations/0000_x.sql").is_file());
        let manifest = fs::read_to_string(folder.path().join("Cargo.toml"))?;
        assert!(manifest.contains("litefs-counter-test"), "{manifest}");
        Ok(fs::read_to_string(folder.path().join("src/main.rs"))?)
    }

    #[test]
    fn text_is_replaced_where_it_stands_once() {
        let edit = |old| Edit { file: "src/main.rs", old, new: "fn other()" };
        assert!(copy(&[edit("fn main()")]).unwrap().contains("fn other()"));
        assert!(copy(&[edit("no such text")]).unwrap_err().root_cause().to_string().contains("0 times"));
        assert!(copy(&[edit("e")]).is_err());
    }
}
