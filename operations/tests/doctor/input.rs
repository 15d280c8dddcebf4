//! What cannot be examined: it is said plainly, and what can be is examined all the same.

use std::fs;

use operations::doctor::report::Report;

use crate::support::{DOCKERFILE, Example, FLY_TOML, LITEFS_YML};

fn is_refused(example: &Example, reason: &str) -> Report {
    let report = example.examine();
    assert_eq!(report.status(), 2, "{report}");
    assert!(report.not_checkable.iter().any(|line| line.contains(reason)), "{reason}: {report}");
    report
}

#[test]
fn a_file_that_is_not_there() {
    for file in [LITEFS_YML, FLY_TOML, DOCKERFILE] {
        let example = Example::new();
        fs::remove_file(example.dir.path().join(file)).unwrap();
        is_refused(&example, &format!("{file} is not in "));
    }
    let example = Example::new();
    for file in [LITEFS_YML, FLY_TOML, DOCKERFILE] {
        fs::remove_file(example.dir.path().join(file)).unwrap();
    }
    assert_eq!(is_refused(&example, FLY_TOML).not_checkable.len(), 3);
}

#[test]
fn a_file_that_cannot_be_read() {
    let whole = "[".repeat(100_000);
    for (file, text, reason) in [
        (LITEFS_YML, "", "litefs.yml cannot be read: it is empty"),
        (LITEFS_YML, "fuse: [", "litefs.yml cannot be read"),
        (LITEFS_YML, "just words", "litefs.yml cannot be read: it has no keys"),
        (LITEFS_YML, whole.as_str(), "litefs.yml cannot be read"),
        (FLY_TOML, "app = ", "fly.toml cannot be read: "),
        (FLY_TOML, "app: counter", "at line 1"),
        (DOCKERFILE, "FROM", "Dockerfile cannot be read"),
        (DOCKERFILE, "ENTRYPOINT [\"litefs\"]", "Dockerfile cannot be read"),
        (DOCKERFILE, "", "Dockerfile cannot be read"),
        (DOCKERFILE, "GO build", "Dockerfile cannot be read"),
    ] {
        let example = Example::new();
        fs::write(example.dir.path().join(file), text).unwrap();
        is_refused(&example, reason);
        fs::write(example.dir.path().join(file), [b'a', 0xff, 0]).unwrap();
        is_refused(&example, file);
    }
    let folder = Example::new();
    fs::remove_file(folder.dir.path().join(FLY_TOML)).unwrap();
    fs::create_dir(folder.dir.path().join(FLY_TOML)).unwrap();
    is_refused(&folder, "fly.toml in ");
}

/// Whatever stands where something else was expected.
#[test]
fn values_of_the_wrong_kind_do_no_harm() {
    for file in [LITEFS_YML, FLY_TOML] {
        let text = Example::text(file);
        let lines: Vec<&str> = text.lines().collect();
        let assigns = if file == FLY_TOML { " = " } else { ": " };
        for (at, line) in lines.iter().enumerate() {
            let Some((key, _)) = line.split_once(assigns).filter(|_| !line.trim_start().starts_with('#'))
            else {
                continue;
            };
            for value in ["[]", "[[1, 2], []]", "{}", "\"\"", "-1", "99999999999999999999", "\"é:é\""] {
                let changed = format!("{key}{assigns}{value}");
                let mut changed_lines = lines.clone();
                changed_lines[at] = &changed;
                let example = Example::new();
                fs::write(example.dir.path().join(file), changed_lines.join("\n")).unwrap();
                let report = example.examine();
                assert!(report.status() <= 2 && !report.to_string().is_empty());
            }
        }
    }
}

#[test]
fn a_timeout_that_is_none() {
    is_refused(&Example::new().with(FLY_TOML, "\"60s\"", "\"soon\""), "kill_timeout in fly.toml, soon");
}

#[test]
fn garbage_on_standard_input() {
    for (input, reason) in [
        ("Error: no access token available", "it is no JSON"),
        ("{\"id\": 1}", "it is no list"),
        ("[1, 2]", "no machines, volumes or secrets"),
        ("[{\"id\": \"a\", \"state\": 5, \"region\": \"sjc\"}]", "document 1"),
        ("[{\"name\": 1, \"digest\": \"x\"}]", "document 1"),
        ("[{\"size_gb\": 1, \"region\": \"sjc\"}]", "missing field"),
        ("[] [", "document 2"),
        ("\u{0}", "it is no JSON"),
    ] {
        let report = is_refused(&Example::new().with_input(input), reason);
        assert!(report.findings.is_empty(), "{report}");
    }
    let deep = "[".repeat(100_000);
    is_refused(&Example::new().with_input(deep), "it is no JSON");
}

#[test]
fn standard_input_that_does_not_end() {
    let mut example = Example::new();
    example.here.input = Some(Err("it has not ended".to_owned()));
    is_refused(&example, "standard input: it has not ended");
}

#[test]
fn an_empty_list_of_which_nobody_knows_what_it_is_says_nothing() {
    for input in ["[]", "null", "[] []", "[] [] [] []"] {
        let report = Example::new().with_input(input).is_well();
        assert!(report.not_checked.iter().any(|line| line.contains("an empty list")), "{input}: {report}");
    }
}

#[test]
fn what_can_be_examined_is_examined_all_the_same() {
    let example = Example::new()
        .with(FLY_TOML, "auto_start_machines = false", "auto_start_machines = true")
        .with_input("garbage");
    let report = is_refused(&example, "it is no JSON");
    assert_eq!(report.findings[0].id, "autostart");
}

#[test]
fn a_url_that_is_none_or_where_nobody_is() {
    is_refused(&Example::new().with_url("example.org"), "example.org is no http(s)://HOST");
    is_refused(&Example::new().with_url("file:///etc/passwd"), "is no http(s)://HOST");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    is_refused(&Example::new().with_url(format!("http://127.0.0.1:{port}")), "does not answer");
}
