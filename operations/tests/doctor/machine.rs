//! On a machine of the application: its variables and its devices, and neither fly.toml nor the Dockerfile.

use std::{
    fs,
    io::Write,
    time::{Duration, SystemTime},
};

use crate::{
    support::{DOCKERFILE, Example, FLY_TOML, LITEFS_YML},
    url::serve,
};

/// A machine that is well, with its Consul.
fn machine(consul: impl Into<String>) -> Example {
    let mut example = Example::new().with(LITEFS_YML, "\"${LITEFS_DIR}\"", "\"/no/such/mount\"");
    for file in [FLY_TOML, DOCKERFILE] {
        fs::remove_file(example.dir.path().join(file)).unwrap();
    }
    example.here.fuse = "/dev/null".into();
    let variables = [
        ("FLY_MACHINE_ID", "a1"),
        ("FLY_APP_NAME", "counter"),
        ("FLY_REGION", "sjc"),
        ("PRIMARY_REGION", "sjc"),
        ("HOSTNAME", "a1"),
        ("LITEFS_DIR", "/no/such/mount"),
        ("DATABASE_FILENAME", "sqlite.db"),
        ("DATABASE_URL", "sqlite:///no/such/mount/sqlite.db"),
        ("INTERNAL_PORT", "8080"),
        ("PORT", "8081"),
    ];
    example.here.variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    example.here.variables.insert("FLY_CONSUL_URL".to_owned(), consul.into());
    example
}

/// With a token, and a prefix as Fly has it.
fn consul(date: SystemTime) -> String {
    let url = serve(move |mut stream, head| {
        assert!(
            head.starts_with("GET /v1/status/leader ") && head.contains("x-consul-token: t0ken"),
            "{head}"
        );
        let date = httpdate::fmt_http_date(date);
        let body = "\"10.0.0.1:8300\"";
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    });
    format!("{}/counter-a1b2/", url.replace("http://", "http://:t0ke%6E@"))
}

#[test]
fn a_machine_that_is_well_needs_no_other_files() {
    let report = machine(consul(SystemTime::now())).is_well();
    assert!(report.not_checked.iter().any(|line| line.starts_with("fly.toml and Dockerfile")), "{report}");
}

#[test]
fn no_device_to_mount_with() {
    let mut example = machine(consul(SystemTime::now()));
    example.here.fuse = "/no/such/device".into();
    example.finds("fuse-missing");
}

#[test]
fn nobody_is_where_consul_should_be() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let report = machine(format!("http://:t0ke%6E@127.0.0.1:{port}")).finds("consul-unreachable");
    assert!(!report.to_string().contains("t0ke") && !report.as_json().contains("t0ke"), "{report}");
}

#[test]
fn consul_has_no_leader() {
    let url = serve(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    machine(url).finds("consul-unreachable");
}

#[test]
fn a_consul_url_that_is_none() {
    let report = machine("ftp://:t0ken@x").finds("consul-url-missing");
    assert!(!report.to_string().contains("t0ken"), "{report}");
    let mut example = machine("");
    example.here.variables.remove("FLY_CONSUL_URL");
    example.finds("consul-url-missing");
}

#[test]
fn a_clock_that_is_wrong() {
    machine(consul(SystemTime::now() - Duration::from_mins(10))).finds("clock-skew");
}

#[test]
fn a_variable_that_the_machine_has_not() {
    let example = machine(consul(SystemTime::now())).with(
        LITEFS_YML,
        "skip-sync: true",
        "skip-sync: true\ntracing:\n  path: \"${TRACE_PATH}\"",
    );
    example.finds("variable-unset");
}

#[test]
fn litefs_that_never_heard_of_a_primary() {
    let mount = tempfile::tempdir().unwrap();
    let path = mount.path().to_str().unwrap();
    let mut example =
        machine(consul(SystemTime::now())).with(LITEFS_YML, "\"/no/such/mount\"", &format!("{path:?}"));
    let url = format!("sqlite://{path}/sqlite.db");
    example.here.variables.insert("DATABASE_URL".to_owned(), url);
    fs::write(mount.path().join(".lag"), "2147483647\n").unwrap();
    example.finds("never-synced");
    fs::write(mount.path().join(".lag"), "-12\n").unwrap();
    example.is_well();
}
