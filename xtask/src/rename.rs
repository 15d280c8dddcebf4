//! The application's name, in every file of the checkout at once.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::run_quietly;

/// The new name.
#[derive(clap::Args)]
pub struct Args {
    /// Lower-case letters, digits and dashes, as Fly's apps and Rust's packages are called
    name: String,
}

/// Replaces the name that Cargo.toml has, in text and in the lock file.
pub fn run(args: &Args, checkout: &Path) -> Result<()> {
    let old = current(checkout)?;
    let renamed = plan(checkout, &old, &args.name)?;
    for (file, text) in &renamed {
        fs::write(checkout.join(file), text).with_context(|| format!("cannot write {file}"))?;
    }
    // Both keep an order that goes by names.
    cargo(checkout, &["update", "--workspace", "--offline", "--quiet"])?;
    cargo(checkout, &["fmt", "--all"])?;
    println!("{old} is {} now, in {} files", args.name, renamed.len());
    Ok(())
}

/// The files that change, and their new text. Refuses a name that could not be told from other words later.
fn plan(checkout: &Path, old: &str, new: &str) -> Result<Vec<(String, String)>> {
    check(new)?;
    let mut renamed = Vec::new();
    for file in files(checkout)? {
        // Pictures, and links to folders, have no text.
        let Ok(text) = fs::read_to_string(checkout.join(&file)) else { continue };
        for word in [new.to_owned(), new.replace('-', "_")] {
            ensure!(
                !is_code(&file) || !has_word(&text, &word),
                "{file} has the word {word} already: take another name"
            );
        }
        let new_text = spellings(old)
            .iter()
            .zip(spellings(new))
            .fold(text.clone(), |text, (old, new)| text.replace(old, &new));
        if new_text != text {
            renamed.push((file, new_text));
        }
    }
    Ok(renamed)
}

fn current(checkout: &Path) -> Result<String> {
    let manifest = fs::read_to_string(checkout.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    let package = manifest.split_once("\n[package]\n").map(|(_, package)| package);
    let name = package.and_then(|package| {
        package.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
    });
    Ok(name.context("Cargo.toml names no package")?.to_owned())
}

fn check(name: &str) -> Result<()> {
    let fits = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
    ensure!(
        fits && starts && name.len() <= 30 && !name.ends_with('-') && !name.contains("--"),
        "{name:?} is no name: expected 1 to 30 lower-case letters, digits and single dashes, a letter first"
    );
    Ok(())
}

/// As an app, in Rust, and in environment variables.
fn spellings(name: &str) -> [String; 3] {
    [name.to_owned(), name.replace('-', "_"), name.replace('-', "_").to_uppercase()]
}

/// What git knows or would add.
fn files(checkout: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let list = run_quietly(list.current_dir(checkout))?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

/// Not what people wrote: a text may well speak of the next name.
fn is_code(file: &str) -> bool {
    [".rs", ".toml", ".lock", ".yml", ".sh"].iter().any(|extension| file.ends_with(extension))
        && file != "deny.toml"
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(word).any(|(start, _)| {
        !text[..start].ends_with(is_part) && !text[start + word.len()..].starts_with(is_part)
    })
}

fn cargo(checkout: &Path, words: &[&str]) -> Result<()> {
    run_quietly(Command::new("cargo").args(words).current_dir(checkout)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// What the README says under "Make it yours", done one after the other.
    #[test]
    fn a_clone_gets_a_name_and_a_second_page_and_passes_its_tests() {
        let clone = clone();
        let old = current(&clone).unwrap();
        // In pieces, since this file is one of those that must not speak of it.
        run(&Args { name: ["another", "name"].join("-") }, &clone).unwrap();
        for file in files(&clone).unwrap() {
            let Ok(text) = fs::read_to_string(clone.join(&file)) else { continue };
            let text = text.to_lowercase();
            for old in spellings(&old) {
                assert!(!text.contains(&old.to_lowercase()), "{file} still speaks of {old}");
            }
        }
        test(&clone);

        let readme = fs::read_to_string(clone.join("README.md")).unwrap();
        let (_, walk) = readme.split_once("### Add a feature").unwrap();
        let (_, patch) = walk.split_once("```diff\n").unwrap();
        let (patch, _) = patch.split_once("```").unwrap();
        let added =
            patch.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++") && *line != "+");
        assert!(added.count() < 60);
        let mut apply = Command::new("git");
        let mut apply = apply.args(["apply", "-"]).current_dir(&clone).stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut apply.stdin.take().unwrap(), patch.as_bytes()).unwrap();
        assert!(apply.wait().unwrap().success(), "the README's walk no longer fits the files");
        test(&clone);
    }

    #[test]
    fn a_name_that_is_none_or_is_another_word_is_refused() {
        for bad in ["", "Counter", "1st", "a_b", "a-", "a--b", "-a", "é", &"a".repeat(31)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        check("my-counter-2").unwrap();
        // A module, a crate, and its own.
        for taken in ["counter", "axum", "tower-http", &current(crate::checkout()).unwrap()] {
            assert!(plan(crate::checkout(), "x", taken).is_err(), "{taken:?}");
        }
    }

    #[test]
    fn a_word_is_not_part_of_another() {
        assert!(has_word("use axum::Router", "axum") && has_word("axum", "axum"));
        assert!(!has_word("axum-extra, my_axum", "axum"));
    }

    /// This checkout's files as they are now, always in the same place: what depends on nothing here is built once.
    fn clone() -> std::path::PathBuf {
        let (checkout, clone) = (crate::checkout(), crate::checkout().join("target/renamed"));
        if clone.exists() {
            fs::remove_dir_all(&clone).unwrap();
        }
        for file in files(checkout).unwrap() {
            let (from, to) = (checkout.join(&file), clone.join(&file));
            // Deleted, and git does not know yet; a link to another folder.
            if !from.is_file() {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
        run_quietly(Command::new("git").args(["init", "--quiet"]).current_dir(&clone)).unwrap();
        clone
    }

    fn test(clone: &Path) {
        let mut test = Command::new("cargo");
        test.args(["test", "--locked", "--quiet"]).current_dir(clone);
        // target, profile, deps, this.
        let this = std::env::current_exe().unwrap();
        run_quietly(test.env("CARGO_TARGET_DIR", this.ancestors().nth(3).unwrap())).unwrap();
    }
}
