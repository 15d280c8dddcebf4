//! The application's name, in every file of the checkout at once.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{copy, run_quietly};

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
    for file in copy::files(checkout)? {
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
    use super::*;

    /// The README's walk, which is followed in `cargo xtask test`, tries what a renamed one does.
    #[test]
    fn no_file_speaks_of_the_old_name() {
        let copy = copy::new("renamed").unwrap();
        let old = current(&copy.folder).unwrap();
        // In pieces, since this file is one of those that must not speak of it.
        run(&Args { name: ["another", "name"].join("-") }, &copy.folder).unwrap();
        for file in copy::files(&copy.folder).unwrap() {
            let Ok(text) = fs::read_to_string(copy.folder.join(&file)) else { continue };
            let text = text.to_lowercase();
            for old in spellings(&old) {
                assert!(!text.contains(&old.to_lowercase()), "{file} still speaks of {old}");
            }
        }
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
}
