//! A running instance, with a server in its place that says what it is told to.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::support::{Example, LITEFS_YML};

/// What such a server says, and what it heard.
#[derive(Clone)]
struct Instance {
    health: (u16, &'static str),
    /// To a write.
    write: (u16, &'static str),
    status: Value,
    date: SystemTime,
}

impl Instance {
    fn well() -> Self {
        let instance = |id: &str, region: &str, role: &str, lag: Value| {
            json!({"id": id, "region": region, "city": null, "state": "answers", "role": role, "txid": "0000000000000004",
                   "lag_ms": lag, "answered_in_ms": 1.5, "version": "0.1.0", "uptime_seconds": 60})
        };
        let status = json!({
            "served_by": "a1", "primary": "a1", "directory_answers": true, "clicks_per_second": [0],
            "instances": [
                instance("a1", "sjc", "primary", Value::Null),
                instance("a2", "sjc", "replica", json!(120)),
                instance("b1", "ams", "replica", json!(310)),
            ],
        });
        let cookie = "Set-Cookie: __txid=0000000000000004; Path=/; Expires=Wed, 25 Nov 2026 20:00:00 GMT; HttpOnly\r\n\
                      Set-Cookie: __txid=0000000000000003; Path=/; Max-Age=300; HttpOnly\r\n";
        Self { health: (200, "OK\n"), write: (405, cookie), status, date: SystemTime::now() }
    }

    fn start(self) -> Example {
        Example::new().with_url(serve(move |stream, head| self.answer(stream, head)))
    }

    fn answer(&self, mut stream: TcpStream, head: &str) {
        let (status, headers, body) = match head.split(' ').collect::<Vec<_>>()[..2] {
            ["GET", "/healthcheck"] => (self.health.0, "", self.health.1.to_owned()),
            ["OPTIONS", "/"] => (self.write.0, self.write.1, String::new()),
            ["GET", "/status"] => (200, "Content-Type: application/json\r\n", self.status.to_string()),
            // The doctor changes nothing.
            _ => panic!("{head}"),
        };
        let date = httpdate::fmt_http_date(self.date);
        let _ = write!(
            stream,
            "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
            body.len()
        );
    }
}

/// A server for as long as the tests run.
pub fn serve(answer: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut head, mut line) = (String::new(), String::new());
            while reader.read_line(&mut line).unwrap() > 2 {
                head.push_str(&std::mem::take(&mut line));
            }
            answer(reader.into_inner(), &head);
        }
    });
    url
}

#[test]
fn all_is_well() {
    let report = Instance::well().start().is_well();
    assert!(
        !report.not_checked.iter().any(|line| line.contains("candidates") || line.contains("--url")),
        "{report}"
    );
}

#[test]
fn an_instance_that_is_not_healthy() {
    let health = (503, "this instance is primary and cannot write: disk full\n");
    let report = Instance { health, ..Instance::well() }.start().finds("unhealthy");
    assert!(report.findings[0].cause.ends_with("cannot write: disk full"), "{report}");
}

#[test]
fn a_write_comes_back_without_the_cookie() {
    Instance { write: (405, ""), ..Instance::well() }.start().finds("cookie-missing");
    Instance { write: (204, "Set-Cookie: other=1\r\n"), ..Instance::well() }.start().finds("cookie-missing");
    // The application's own, which LiteFS's proxy would wait for if it found the database.
    let own = "Set-Cookie: __txid=0000000000000003; Path=/; Max-Age=300; HttpOnly\r\n";
    Instance { write: (405, own), ..Instance::well() }.start().finds("cookie-missing");
}

#[test]
fn what_says_nothing_of_the_cookie_is_left_out() {
    // Nobody is primary; a replica itself in place of Fly's proxy.
    for write in [(503, ""), (200, "fly-replay: instance=a1\r\n")] {
        let report = Instance { write, ..Instance::well() }.start().is_well();
        assert!(report.not_checked.iter().any(|line| line.contains("__txid")), "{report}");
    }
}

#[test]
fn the_application_runs_without_litefs() {
    let mut instance = Instance::well();
    instance.status["instances"] =
        json!([{"id": "local", "region": "local", "state": "answers", "role": "standalone"}]);
    instance.start().finds("no-litefs");
}

#[test]
fn nobody_is_primary() {
    let mut instance = Instance::well();
    instance.status["primary"] = Value::Null;
    instance.status["instances"][0]["role"] = json!("no primary");
    instance.start().finds("no-primary");
}

#[test]
fn an_instance_that_does_not_answer() {
    let mut instance = Instance::well();
    instance.status["instances"][2]["state"] = json!("answers, its LiteFS does not");
    instance.clone().start().finds("instance-silent");
    instance.status["instances"][2]["state"] = json!("has left");
    instance.start().is_well();
}

#[test]
fn a_replica_that_never_synced() {
    let mut instance = Instance::well();
    instance.status["instances"][2]["lag_ms"] = json!(2_147_483_647);
    instance.clone().start().finds("never-synced");
    instance.status["instances"][2]["lag_ms"] = json!(5);
    instance.status["instances"][2]["txid"] = Value::Null;
    let report = instance.start().finds("never-synced");
    assert!(report.findings[0].cause.starts_with("b1 "), "{report}");
}

#[test]
fn one_candidate() {
    let mut instance = Instance::well();
    instance.status["instances"][1]["region"] = json!("syd");
    instance.clone().start().finds("few-candidates");
    // Where litefs.yml has candidates everywhere, that one is.
    instance
        .start()
        .with(LITEFS_YML, "candidate: ${FLY_REGION == PRIMARY_REGION}", "candidate: true")
        .is_well();
}

#[test]
fn nobody_counts_where_private_dns_does_not_answer() {
    let mut instance = Instance::well();
    instance.status["directory_answers"] = json!(false);
    instance.status["instances"].as_array_mut().unwrap().truncate(1);
    let report = instance.start().is_well();
    assert!(report.not_checked.iter().any(|line| line.contains("private DNS")), "{report}");
}

#[test]
fn clocks_that_are_apart() {
    for date in [SystemTime::now() - Duration::from_mins(1), SystemTime::now() + Duration::from_mins(1)] {
        Instance { date, ..Instance::well() }.start().finds("clock-skew");
    }
}

#[test]
fn an_application_that_has_no_status_is_examined_without() {
    for status in [json!("no"), json!([]), json!({"instances": 5})] {
        let report = Instance { status, ..Instance::well() }.start().is_well();
        assert!(report.not_checked.iter().any(|line| line.contains("/status")), "{report}");
    }
}

#[test]
fn somebody_who_speaks_no_http_is_not_checkable() {
    for garbage in ["", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let url = serve(move |mut stream, _| _ = stream.write_all(garbage.as_bytes()));
        let report = Example::new().with_url(url).examine();
        assert_eq!(report.status(), 2, "{report}");
    }
}
