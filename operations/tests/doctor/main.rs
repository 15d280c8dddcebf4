//! The doctor, on the project's own files, which are well, and on what people really get wrong: each example is those files
//! with one mistake in them, and has one finding.

mod files;
mod flyctl;
mod input;
mod machine;
mod support;
mod url;

use std::{collections::BTreeSet, fs, path::Path};

use support::{Example, FLY_TOML};

#[test]
fn this_repository_s_own_files_are_well() {
    let report = Example::new().examine();
    assert_eq!(report.status(), 0, "{report}");
    assert!(report.to_string().contains("Nothing wrong was found."), "{report}");
}

#[test]
fn what_was_not_checked_is_said_and_makes_nothing_a_bad_one() {
    let report = Example::new().examine();
    for what in ["fly machines list", "fly volumes list", "fly secrets list", "--url", "run doctor there"] {
        assert!(report.not_checked.iter().any(|line| line.contains(what)), "{what}: {report}");
    }
    assert_eq!(report.status(), 0);
}

#[test]
fn a_finding_says_where_it_is_and_programs_can_read_it() {
    let report = Example::new().with(FLY_TOML, "\"SIGTERM\"", "\"SIGQUIT\"").examine();
    let json: serde_json::Value = serde_json::from_str(&report.as_json()).unwrap();
    assert_eq!(json["status"], 1);
    let finding = &json["findings"][0];
    assert_eq!((finding["id"].as_str(), finding["source"].as_str()), (Some("kill-signal"), Some("fly.toml")));
    let text = Example::text(FLY_TOML);
    let line = text.lines().position(|line| line.starts_with("kill_signal")).unwrap() + 1;
    assert_eq!((finding["key"].as_str(), finding["line"].as_u64()), (Some("kill_signal"), Some(line as u64)));
    assert!(finding["cause"].is_string() && finding["mend"].is_string());
    assert!(json["not_checkable"].as_array().unwrap().is_empty());
    assert!(json["not_checked"].as_array().unwrap().iter().all(serde_json::Value::is_string));
    let shown = report.to_string();
    assert!(shown.starts_with(&format!("fly.toml:{line}  kill_signal  [kill-signal]\n")), "{shown}");
    assert!(shown.contains("\n  Mend: ") && shown.ends_with("1 finding."), "{shown}");
}

/// So that a check without a broken example cannot come in.
#[test]
fn every_finding_has_a_broken_example() {
    let read = |folder: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = fs::read_dir(&folder).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect::<String>()
    };
    let (source, tests) = (read("src/doctor"), read("tests/doctor"));
    let ids: BTreeSet<&str> = source
        .split("report.find(")
        .skip(1)
        .filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    assert!(ids.len() > 40, "{ids:?}");
    let without: Vec<_> = ids.iter().filter(|id| !tests.contains(&format!("\"{id}\""))).collect();
    assert!(without.is_empty(), "{without:?}");
}
