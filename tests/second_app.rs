//! The instance module in an application that has nothing else of this one: `examples/second_app.rs`.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

/// Its output is kept open: an example that prints into a closed pipe ends.
struct Running(Child, Option<BufReader<ChildStdout>>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(environment: &[(&str, &str)]) -> (Running, String) {
    let build = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--example", "second_app"])
        .status();
    assert!(build.unwrap().success());
    let program = PathBuf::from(env!("CARGO_BIN_EXE_litefs-counter")).with_file_name("examples/second_app");
    let mut command = Command::new(program);
    command.env_clear().env("ADDRESS", "127.0.0.1:0").envs(environment.iter().copied());
    let mut child = Running(command.stdout(Stdio::piped()).spawn().unwrap(), None);
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    let line =
        output.by_ref().lines().map_while(Result::ok).find(|line| line.starts_with("Listening")).unwrap();
    child.1 = Some(output);
    (child, line.rsplit_once(' ').unwrap().1.to_owned())
}

#[tokio::test]
async fn another_application_knows_who_it_is_and_writes_where_it_may() {
    let (_running, url) = start(&[("FLY_MACHINE_ID", "abc123"), ("FLY_REGION", "ams")]);
    let client = client();

    let who = client.get(&url).send().await.unwrap().text().await.unwrap();
    assert_eq!(who, "abc123 in ams: standalone\n");
    let noted = client.post(format!("{url}/notes")).body("milk").send().await.unwrap();
    assert_eq!(noted.text().await.unwrap(), "1 notes\n");
}

#[tokio::test]
async fn without_an_answer_of_litefs_it_takes_no_role_and_no_notes() {
    // Nobody listens at port 1.
    let (_running, url) = start(&[("LITEFS_DIR", "/litefs"), ("LITEFS_URL", "http://127.0.0.1:1")]);
    let client = client();

    let who = client.get(&url).send().await.unwrap().text().await.unwrap();
    assert!(who.contains("LiteFS does not answer at http://127.0.0.1:1"), "{who}");
    let noted = client.post(format!("{url}/notes")).body("milk").send().await.unwrap();
    assert_eq!(noted.status(), 503);
}
