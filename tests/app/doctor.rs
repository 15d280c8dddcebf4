//! `litefs-counter doctor` as an operator runs it. What it finds is tried in `operations`.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::helpers::App;

/// With the repository's own files.
fn doctor(arguments: &[&str], environment: &[(&str, &str)], input: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litefs-counter"));
    command.arg("doctor").args(arguments).env_clear().envs(environment.iter().copied());
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).spawn().unwrap();
    if let Some(input) = input {
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    }
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn this_repository_is_well() {
    let output = doctor(&[], &[], None);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).ends_with("Nothing wrong was found.\n"), "{}", text(&output));
}

#[test]
fn what_comes_from_flyctl_is_read() {
    let output = doctor(&[], &[], Some(r#"[{"name":"OTHER","digest":"1"}]"#));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("[consul-url-missing]"), "{}", text(&output));
    let output = doctor(&[], &[], Some("Error: no access token"));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    // A pipe that brings nothing is none.
    assert_eq!(doctor(&[], &[], Some("")).status.code(), Some(0));
}

#[test]
fn a_directory_that_is_not_there_is_said_to_be_none() {
    let output = doctor(&["/no/such/directory"], &[], None);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("fly.toml is not in /no/such/directory"), "{}", text(&output));
}

/// The application would not start with it, and says why; so does the doctor, of all that is wrong.
#[test]
fn an_environment_that_the_application_refuses_is_examined() {
    let environment = [("FLY_MACHINE_ID", "a1"), ("LITEFS_DIR", "/litefs")];
    let output = doctor(&["--json"], &environment, None);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!((output.status.code(), report["status"].as_i64()), (Some(1), Some(1)), "{report}");
    let ids: Vec<_> = report["findings"].as_array().unwrap().iter().map(|finding| &finding["id"]).collect();
    assert!(ids.iter().any(|id| *id == "consul-url-missing"), "{report}");
}

#[tokio::test]
async fn a_running_application_is_examined_and_its_count_stays() {
    let app = App::start().await;
    let before = app.count().await;
    let url = app.url.clone();
    let output =
        tokio::task::spawn_blocking(move || doctor(&["--json", "--url", &url], &[], None)).await.unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    // It stands alone, and says so; to be found well takes a cluster.
    let ids: Vec<_> = report["findings"].as_array().unwrap().iter().map(|finding| &finding["id"]).collect();
    assert_eq!(ids, ["cookie-missing", "no-litefs"], "{report}");
    assert_eq!(app.count().await, before);
}
