//! Machines, volumes and secrets, as flyctl prints them.

use serde_json::{Value, json};

use crate::support::Example;

fn machine(id: &str, region: &str) -> Value {
    json!({
        "id": id,
        "name": "long-river-4711",
        "state": "started",
        "region": region,
        "private_ip": "fdaa::2",
        "config": {
            "env": {"FLY_PROCESS_GROUP": "app"},
            "metadata": {"fly_process_group": "app", "fly_platform_version": "v2"},
            "mounts": [{"path": "/var/lib/litefs", "volume": "vol_1", "name": "litefs", "size_gb": 1}],
            "services": [{"protocol": "tcp", "internal_port": 8080, "autostop": false, "autostart": false}],
        },
    })
}

fn machines() -> Vec<Value> {
    [("a1", "sjc"), ("a2", "sjc"), ("b1", "ams")].map(|(id, region)| machine(id, region)).to_vec()
}

fn volumes() -> Vec<Value> {
    let volume = |region: &str| {
        json!({"id": "vol_1", "name": "litefs", "state": "created", "size_gb": 1, "region": region,
               "attached_machine_id": "a1"})
    };
    ["sjc", "sjc", "ams"].map(volume).to_vec()
}

fn secrets() -> Vec<Value> {
    vec![json!({"name": "FLY_CONSUL_URL", "digest": "d1", "status": "Deployed"})]
}

fn told(documents: &[Vec<Value>]) -> Example {
    let documents: Vec<String> =
        documents.iter().map(|items| Value::from(items.clone()).to_string()).collect();
    Example::new().with_input(documents.join("\n"))
}

#[test]
fn all_is_well_and_nothing_of_it_is_left_out() {
    let report = told(&[machines(), volumes(), secrets()]).is_well();
    assert!(!report.not_checked.iter().any(|line| line.contains("fly ")), "{report}");
    // In any order.
    told(&[secrets(), machines(), volumes()]).is_well();
}

#[test]
fn one_candidate() {
    let report = told(&[vec![machine("a1", "sjc"), machine("b1", "ams")]]).finds("few-candidates");
    assert!(report.findings[0].mend.contains("sjc"), "{report}");
}

#[test]
fn a_second_candidate_that_is_stopped() {
    let mut machines = machines();
    machines[1]["state"] = json!("stopped");
    let report = told(&[machines]).finds("few-candidates");
    assert!(report.findings[0].cause.contains("a2 is stopped"), "{report}");
}

#[test]
fn machines_that_are_no_instances_do_not_count() {
    let mut console = machine("c1", "sjc");
    console["config"]["metadata"]["fly_process_group"] = json!("fly_app_console");
    let mut gone = machine("c2", "sjc");
    gone["state"] = json!("destroyed");
    told(&[vec![machine("a1", "sjc"), console, gone]]).finds("few-candidates");
}

#[test]
fn a_machine_without_a_volume() {
    let mut machines = machines();
    machines[2]["config"].as_object_mut().unwrap().remove("mounts");
    let report = told(&[machines]).finds("machine-without-volume");
    assert!(report.findings[0].key.as_deref().unwrap().starts_with("b1"), "{report}");
}

#[test]
fn a_machine_that_fly_toml_has_not_reached_yet() {
    for (key, value, id) in [
        ("autostop", json!(true), "autostop"),
        ("autostop", json!("suspend"), "autostop"),
        ("autostart", json!(true), "autostart"),
        ("internal_port", json!(8081), "app-port-exposed"),
    ] {
        let mut machines = machines();
        machines[0]["config"]["services"][0][key] = value;
        told(&[machines]).finds(id);
    }
}

#[test]
fn a_machine_whose_host_is_not_reached_still_has_a_configuration() {
    let mut machines = machines();
    machines[1]["incomplete_config"] = machines[1]["config"].take();
    told(&[machines]).is_well();
}

#[test]
fn too_few_volumes() {
    // With machines, one for each; without, two for the candidates.
    told(&[machines(), volumes()[1..].to_vec()]).finds("volumes-few");
    told(&[machines(), volumes()[..2].to_vec()]).finds("volumes-few");
    told(&[volumes()[1..].to_vec()]).finds("volumes-few");
    told(&[volumes()[..2].to_vec()]).is_well();
}

#[test]
fn consul_is_not_attached() {
    told(&[vec![json!({"name": "SENTRY_DSN", "digest": "d1"})]]).finds("consul-url-missing");
    // As older versions of flyctl write it.
    told(&[vec![json!({"Name": "FLY_CONSUL_URL", "Digest": "d1", "CreatedAt": "1 month ago"})]]).is_well();
}

/// As many empty lists as there are kinds left: they are of those.
#[test]
fn an_empty_list_that_can_be_of_one_kind_only_is_of_that() {
    let candidates = machines()[..2].to_vec();
    told(&[candidates.clone(), vec![], secrets()]).finds("volumes-few");
    told(&[vec![], volumes(), secrets()]).finds("few-candidates");
    told(&[machines(), volumes(), vec![]]).finds("consul-url-missing");
    let null = [Value::from(candidates), Value::Null, Value::from(secrets())].map(|list| list.to_string());
    Example::new().with_input(null.concat()).finds("volumes-few");

    let report = Example::new().with_input("[]\nnull\n[]").examine();
    let found: Vec<&str> = report.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(found, ["consul-url-missing", "few-candidates", "volumes-few"], "{report}");
    assert_eq!(report.status(), 1, "{report}");
    assert!(!report.not_checked.iter().any(|line| line.contains("fly ")), "{report}");
}
