//! Mistakes in litefs.yml, fly.toml and the Dockerfile. Most of them stand in public applications.

use crate::support::{DOCKERFILE, Example, FLY_TOML, LITEFS_YML};

const DB: &str = "db: \"${DATABASE_FILENAME}\"";
const TARGET: &str = "target: \"localhost:${PORT}\"";
const CANDIDATE: &str = "candidate: ${FLY_REGION == PRIMARY_REGION}";
const URL: &str = "url: \"${FLY_CONSUL_URL}\"";
const KEY: &str = "key: \"litefs/${FLY_APP_NAME}\"";
const EXEC: &str =
    "cmd: \"setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs litefs-counter\"";
const INTERNAL_PORT: &str = "internal_port = 8080";
const ENTRYPOINT: &str = "ENTRYPOINT [\"litefs-counter\", \"launch\"]";

fn litefs(text: &str, other: &str) -> Example {
    Example::new().with(LITEFS_YML, text, other)
}

fn fly(text: &str, other: &str) -> Example {
    Example::new().with(FLY_TOML, text, other)
}

fn image(text: &str, other: &str) -> Example {
    Example::new().with(DOCKERFILE, text, other)
}

#[test]
fn a_path_in_place_of_the_database_s_name() {
    litefs(DB, "db: \"${LITEFS_DIR}/${DATABASE_FILENAME}\"").finds("proxy-db-path");
    let report = litefs(DB, "db: /litefs/sqlite.db").finds("proxy-db-path");
    assert_eq!(report.findings[0].mend, "Give the bare file name: sqlite.db.");
}

/// The maintainers' example calls it `db`, and it is copied with that.
#[test]
fn the_name_of_another_database() {
    litefs(DB, "db: \"db\"").finds("proxy-db-other");
    image("DATABASE_URL=sqlite://$LITEFS_DIR/$DATABASE_FILENAME", "DATABASE_URL=file:$LITEFS_DIR/app.db?x=1")
        .finds("proxy-db-other");
}

#[test]
fn no_name_of_a_database() {
    litefs(DB, "debug: false").finds("proxy-db-missing");
}

#[test]
fn no_proxy() {
    litefs(TARGET, "debug: false").finds("proxy-missing");
}

#[test]
fn a_proxy_that_hands_on_to_itself() {
    litefs(TARGET, "target: \"localhost:8080\"").finds("proxy-target-itself");
}

#[test]
fn a_limit_of_the_lag_that_limits_nothing() {
    litefs(DB, "db: \"${DATABASE_FILENAME}\"\n  max-lag: 1s").finds("max-lag");
    litefs(DB, "db: \"${DATABASE_FILENAME}\"\n  max-lag: 0s").is_well();
}

#[test]
fn a_database_beside_the_mount() {
    image("sqlite://$LITEFS_DIR", "sqlite:///data").finds("database-outside");
    fly("[env]", "[env]\n  DATABASE_URL = \"file:/app/sqlite.db\"").finds("database-outside");
}

#[test]
fn litefs_data_in_its_own_mount() {
    litefs("dir: \"/var/lib/litefs\"", "dir: \"${LITEFS_DIR}\"")
        .with(FLY_TOML, "destination = \"/var/lib/litefs\"", "destination = \"/litefs\"")
        .finds("data-in-mount");
}

/// Nearly every public litefs.yml has it.
#[test]
fn a_candidate_that_takes_the_lease_at_each_start() {
    litefs(CANDIDATE, "candidate: ${FLY_REGION == PRIMARY_REGION}\n  promote: true").finds("lease-promote");
    litefs(CANDIDATE, "candidate: ${FLY_REGION == PRIMARY_REGION}\n  promote: yes").finds("lease-promote");
    litefs(CANDIDATE, "candidate: ${FLY_REGION == PRIMARY_REGION}\n  promote: false").is_well();
}

#[test]
fn a_lease_that_nobody_else_can_take() {
    litefs("type: \"consul\"", "type: \"static\"").finds("lease-static");
}

#[test]
fn a_type_of_lease_that_there_is_not() {
    litefs("type: \"consul\"", "type: \"raft\"").finds("lease-type");
}

#[test]
fn nobody_may_be_primary() {
    litefs(CANDIDATE, "candidate: ${FLY_REGION == 'syd'}").finds("no-candidate");
    litefs(CANDIDATE, "candidate: false").finds("no-candidate");
    let report = fly("primary_region = \"sjc\"", "").finds("no-candidate");
    assert_eq!(report.findings[0].source, FLY_TOML);
}

#[test]
fn all_machines_say_that_they_are_at_the_same_place() {
    litefs("http://${HOSTNAME}.vm.${FLY_APP_NAME}.internal:20202/", "http://localhost:20202/")
        .finds("advertise-url-shared");
    litefs(
        "http://${HOSTNAME}.vm.${FLY_APP_NAME}.internal:20202/",
        "http://${FLY_ALLOC_ID}.vm.x.internal:20202/",
    )
    .is_well();
}

#[test]
fn no_consul() {
    litefs(URL, "url: \"\"").finds("consul-url-missing");
    litefs(URL, "url: \"${CONSUL_URL}\"").finds("consul-url-missing");
}

#[test]
fn a_lease_without_a_key() {
    litefs(KEY, "ttl: 10s").finds("consul-key-missing");
}

#[test]
fn a_lease_that_another_application_has_as_well() {
    litefs(KEY, "key: \"litefs/primary\"").finds("consul-key-shared");
    litefs(KEY, "key: \"${FLY_APP_NAME}/primary\"").is_well();
    litefs(KEY, "key: \"litefs-counter-v2\"").is_well();
}

#[test]
fn nothing_to_start() {
    litefs("exec:\n", "").with(LITEFS_YML, &format!("  - {EXEC}"), "").finds("exec-missing");
    litefs("exec:\n", "")
        .with(LITEFS_YML, &format!("  - {EXEC}"), "")
        .with(DOCKERFILE, ENTRYPOINT, "ENTRYPOINT [\"litefs\", \"mount\", \"--\", \"app\"]")
        .with(LITEFS_YML, "/#${LAUNCH_ID}", "")
        .is_well();
}

/// As two templates do it that are copied often.
#[test]
fn migrations_before_the_application() {
    litefs(EXEC, &format!("cmd: npx prisma migrate deploy\n    if-candidate: true\n  - {EXEC}"))
        .finds("exec-migration");
    litefs(EXEC, &format!("cmd: sqlite3 $DATABASE_FILENAME \"PRAGMA journal_mode = WAL;\"\n  - {EXEC}"))
        .with(LITEFS_YML, "\"PRAGMA journal_mode = WAL;\"", "'PRAGMA journal_mode = WAL;'")
        .finds("exec-migration");
}

#[test]
fn a_shell_before_the_application() {
    litefs(EXEC, "cmd: \"sh -c 'litefs-counter --log debug'\"").finds("exec-shell");
    litefs(EXEC, "cmd: \"setpriv --reuid=10001 /bin/bash -lc litefs-counter\"").finds("exec-shell");
    litefs(EXEC, "cmd: \"sh -c 'sleep 1; exec litefs-counter'\"").is_well();
    let report = litefs(EXEC, "cmd: \"./start.sh\"").is_well();
    assert!(report.not_checked.iter().any(|line| line.contains("./start.sh")), "{report}");
}

#[test]
fn a_key_that_litefs_does_not_know() {
    litefs("skip-sync: true", "skip-sync: true\nmount-dir: /litefs").finds("litefs-key-unknown");
    litefs(DB, "db: \"${DATABASE_FILENAME}\"\n  maxlag: 1s").finds("litefs-key-unknown");
    let report = litefs("skip-sync: true", "skip-sync: true\ncandidate: true").finds("litefs-key-unknown");
    assert_eq!(report.findings[0].mend, "Move it to where LiteFS has it, lease.candidate.");
}

#[test]
fn a_key_that_litefs_passes_over() {
    litefs(EXEC, &format!("{EXEC}\n    if-primary: true")).finds("litefs-key-ignored");
}

#[test]
fn a_value_that_litefs_does_not_take() {
    litefs(CANDIDATE, "candidate: \"${FLY_REGION == PRIMARY_REGION}\"").finds("litefs-value-refused");
    litefs("skip-sync: true", "skip-sync: maybe").finds("litefs-value-refused");
    litefs(KEY, "key: \"litefs/${FLY_APP_NAME}\"\n    ttl: 10").finds("litefs-value-refused");
    litefs(DB, "db: \"${DATABASE_FILENAME}\"\n  max-lag: 0").finds("litefs-value-refused");
    litefs("passthrough: [", "passthrough: /x # [").finds("litefs-value-refused");
}

#[test]
fn a_variable_that_nothing_sets() {
    let secrets = r#"[{"name":"FLY_CONSUL_URL","digest":"a1"}]"#;
    let typo = |secrets: &str| {
        litefs("type: \"consul\"", "type: \"consul\"\n  hostname: \"${FLY_MACHIN_ID}\"").with_input(secrets)
    };
    typo(secrets).finds("variable-unset");
    typo(r#"[{"name":"FLY_CONSUL_URL","digest":"a1"},{"name":"FLY_MACHIN_ID","digest":"a2"}]"#).is_well();
}

#[test]
fn a_secret_that_wins_over_a_file_is_not_known() {
    let secrets = r#"[{"name":"FLY_CONSUL_URL","digest":"a1"},{"name":"DATABASE_URL","digest":"a2"}]"#;
    let report = Example::new().with_input(secrets).is_well();
    assert!(report.not_checked.iter().any(|line| line.starts_with("DATABASE_URL as it is")), "{report}");
}

#[test]
fn machines_that_stop_when_nobody_comes() {
    for value in ["true", "\"stop\"", "\"suspend\""] {
        fly("auto_stop_machines = \"off\"", &format!("auto_stop_machines = {value}")).finds("autostop");
    }
    fly("auto_stop_machines = \"off\"", "auto_stop_machines = false").is_well();
}

#[test]
fn machines_that_start_for_a_request() {
    fly("auto_start_machines = false", "auto_start_machines = true").finds("autostart");
    let report = fly("auto_start_machines = false", "").is_well();
    assert!(report.not_checked.iter().any(|line| line.contains("auto_start_machines")), "{report}");
}

#[test]
fn the_application_s_own_port_is_exposed() {
    fly(INTERNAL_PORT, "internal_port = 8081").finds("app-port-exposed");
    // In the environment, where it wins over the image's.
    fly("[env]", "[env]\n  PORT = \"3000\"")
        .with(FLY_TOML, INTERNAL_PORT, "internal_port = 3000")
        .finds("app-port-exposed");
    let beside = "[[services]]\n  internal_port = 8081\n  protocol = \"tcp\"\n  auto_start_machines = false\n\n[[restart]]";
    let report = fly("[[restart]]", beside).finds("app-port-exposed");
    assert_eq!(report.findings[0].key.as_deref(), Some("services.internal_port"));
}

#[test]
fn litefs_api_is_exposed() {
    fly(INTERNAL_PORT, "internal_port = 20202").finds("litefs-api-exposed");
}

#[test]
fn what_is_for_the_private_network_is_exposed() {
    fly(INTERNAL_PORT, "internal_port = 8082").finds("private-port-exposed");
}

#[test]
fn nobody_listens_on_the_exposed_port() {
    fly(INTERNAL_PORT, "internal_port = 3000").finds("port-unknown");
}

#[test]
fn no_port_is_exposed() {
    fly(INTERNAL_PORT, "").finds("port-missing");
}

#[test]
fn a_check_that_takes_all_replicas_out_with_the_primary() {
    fly("path = \"/healthcheck\"", "path = \"/litefs/health\"").finds("health-litefs");
    fly("[[restart]]", "[checks.litefs]\n  type = \"http\"\n  path = \"/litefs/health\"\n\n[[restart]]")
        .finds("health-litefs");
    fly("path = \"/healthcheck\"", "path = \"/litefs/health\"")
        .with(LITEFS_YML, DB, "db: \"${DATABASE_FILENAME}\"\n  max-lag: 1s")
        .finds("health-litefs");
}

#[test]
fn too_little_time_to_stop() {
    for value in ["", "kill_timeout = 5", "kill_timeout = \"10s\"", "kill_timeout = \"10m\""] {
        fly("kill_timeout = \"60s\"", value).finds("kill-timeout");
    }
    fly("kill_timeout = \"60s\"", "kill_timeout = 120").is_well();
}

#[test]
fn a_signal_that_litefs_does_not_hand_on() {
    fly("kill_signal = \"SIGTERM\"", "kill_signal = \"SIGQUIT\"").finds("kill-signal");
    fly("kill_signal = \"SIGTERM\"", "").is_well();
}

#[test]
fn a_machine_that_stays_down() {
    fly("policy = \"always\"", "policy = \"on-failure\"").finds("restart-policy");
    fly("[[restart]]", "").with(FLY_TOML, "policy = \"always\"", "").finds("restart-policy");
}

#[test]
fn no_volume() {
    let from = Example::text(FLY_TOML);
    let section = from.split_once("[[mounts]]").unwrap().1.split_once("\n[").unwrap().0.to_owned();
    fly(&format!("[[mounts]]{section}"), "").finds("volume-missing");
}

#[test]
fn a_volume_elsewhere() {
    fly("destination = \"/var/lib/litefs\"", "destination = \"/data\"").finds("volume-elsewhere");
    fly("destination = \"/var/lib/litefs\"", "destination = \"/litefs\"").finds("volume-elsewhere");
    litefs("dir: \"/var/lib/litefs\"", "dir: \"/data/litefs\"")
        .with(FLY_TOML, "destination = \"/var/lib/litefs\"", "destination = \"/data\"")
        .with(FLY_TOML, "[[mounts]]", "[mounts]")
        .is_well();
}

#[test]
fn a_command_on_a_machine_without_litefs() {
    fly("strategy = \"rolling\"", "strategy = \"rolling\"\n  release_command = \"migrate\"")
        .finds("release-command");
}

#[test]
fn a_consul_of_former_days() {
    fly("[[restart]]", "[experimental]\n  enable_consul = true\n\n[[restart]]").finds("consul-experimental");
}

#[test]
fn no_fuse3() {
    image("fuse3 sqlite3", "sqlite3").finds("fuse-missing");
    image("fuse3 sqlite3", "fuse sqlite3").finds("fuse-missing");
}

#[test]
fn a_user_that_may_not_mount() {
    image(ENTRYPOINT, &format!("USER counter\n{ENTRYPOINT}")).finds("litefs-not-root");
    image(ENTRYPOINT, &format!("USER root\n{ENTRYPOINT}")).is_well();
}

#[test]
fn a_shell_before_litefs() {
    image(ENTRYPOINT, "ENTRYPOINT litefs-counter launch").finds("entrypoint-shell");
}

#[test]
fn the_application_is_started_without_litefs() {
    image(ENTRYPOINT, "CMD [\"npm\", \"start\"]")
        .with(LITEFS_YML, "/#${LAUNCH_ID}", "")
        .finds("litefs-not-started");
}

/// As epic-stack has it.
#[test]
fn files_that_fly_toml_and_the_dockerfile_name_are_found() {
    let example = fly("[deploy]", "[build]\n  dockerfile = \"/other/Dockerfile\"\n\n[deploy]").with(
        DOCKERFILE,
        "COPY litefs.yml /etc/litefs.yml",
        "ADD other/litefs.yml /etc/litefs.yml",
    );
    let path = example.dir.path();
    std::fs::create_dir(path.join("other")).unwrap();
    for file in [DOCKERFILE, LITEFS_YML] {
        std::fs::rename(path.join(file), path.join("other").join(file)).unwrap();
    }
    example.is_well();
}
