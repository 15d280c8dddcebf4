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

/// Replaces the name that Cargo.toml has, in text and in the lock file. Refuses what could not be told from other words.
pub fn run(args: &Args, checkout: &Path) -> Result<()> {
    let (old, new) = (current(checkout)?, args.name.as_str());
    check(new)?;
    ensure!(old != new, "that is its name already");
    let files = files(checkout)?;
    let texts: Vec<(&String, String)> = files
        .iter()
        // Pictures, and links into other folders, have no text.
        .filter_map(|file| Some((file, fs::read_to_string(checkout.join(file)).ok()?)))
        .collect();
    for (file, text) in texts.iter().filter(|(file, _)| is_code(file)) {
        ensure!(!has_word(text, &new.replace('-', "_")) && !has_word(text, new), "{file} speaks of {new:?} already: take another name");
    }
    let mut changed = 0;
    for (file, text) in &texts {
        let renamed = spellings(&old).iter().zip(spellings(new)).fold(text.clone(), |text, (old, new)| text.replace(old, &new));
        if renamed != *text {
            fs::write(checkout.join(file), renamed).with_context(|| format!("cannot write {file}"))?;
            changed += 1;
        }
    }
    // Both keep an order that goes by names.
    cargo(checkout, &["update", "--workspace", "--offline", "--quiet"])?;
    cargo(checkout, &["fmt", "--all"])?;
    println!("{old} is {new}, in {changed} files");
    Ok(())
}

fn current(checkout: &Path) -> Result<String> {
    let manifest = fs::read_to_string(checkout.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    let package = manifest.split_once("\n[package]\n").map(|(_, package)| package);
    let name = package.and_then(|package| package.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')));
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
    [".rs", ".toml", ".lock", ".yml", ".sh"].iter().any(|extension| file.ends_with(extension)) && file != "deny.toml"
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
