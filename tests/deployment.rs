//! Dockerfile, fly.toml and litefs.yml speak of the same things, and nothing else holds them together: a port that
//! differs shows only after the deploy.
//!
//! litefs.yml is read by lines: it is YAML only after LiteFS has replaced its variables, and the cluster tests hand
//! it to LiteFS itself, which refuses what it does not know.

use std::{collections::BTreeMap, fs, path::Path};

/// What Fly sets on each machine, as far as litefs.yml uses it.
/// <https://fly.io/docs/machines/runtime-environment/>; `FLY_CONSUL_URL` comes from `fly consul attach`.
const SET_BY_FLY: [&str; 5] = ["FLY_APP_NAME", "FLY_CONSUL_URL", "FLY_REGION", "HOSTNAME", "PRIMARY_REGION"];

/// What `litefs-counter launch` sets for LiteFS.
const SET_BY_LAUNCH: &str = "LAUNCH_ID";

#[test]
fn visitors_reach_litefs_and_never_the_application_past_it() {
    let image = image_environment();
    let service = &fly()["http_service"];
    assert_eq!(service["internal_port"].as_integer().unwrap().to_string(), image["INTERNAL_PORT"]);
    assert_ne!(image["PORT"], image["INTERNAL_PORT"]);
    assert_eq!(litefs("proxy", "addr"), ":${INTERNAL_PORT}");
    assert_eq!(litefs("proxy", "target"), "localhost:${PORT}");
}

#[test]
fn metrics_are_asked_for_where_they_are_and_visitors_do_not_reach_them() {
    let fly = fly();
    let private = fly["env"]["PRIVATE_ADDR"].as_str().unwrap();
    let metrics = &fly["metrics"][0];
    assert_eq!(metrics["path"].as_str(), Some("/metrics"));
    let port = metrics["port"].as_integer().unwrap();
    assert_eq!(private, format!("[::]:{port}"));
    assert_ne!(fly["http_service"]["internal_port"].as_integer(), Some(port));
    assert!(!fly.contains_key("services"), "a second service would have to be looked at as well");
}

#[test]
fn the_proxy_watches_the_database_that_the_application_opens() {
    let image = image_environment();
    assert_eq!(litefs("fuse", "dir"), "${LITEFS_DIR}");
    assert_eq!(litefs("proxy", "db"), "${DATABASE_FILENAME}");
    assert!(!image["DATABASE_FILENAME"].contains('/'), "with a path, read-your-writes is off without a word");
    let url = format!("sqlite://{}/{}", image["LITEFS_DIR"], image["DATABASE_FILENAME"]);
    assert_eq!(image["DATABASE_URL"], url);
}

#[test]
fn only_the_primary_region_has_candidates() {
    assert!(!fly()["primary_region"].as_str().unwrap().is_empty());
    assert_eq!(litefs("lease", "candidate"), "${FLY_REGION == PRIMARY_REGION}");
}

#[test]
fn no_start_takes_the_lease_from_a_primary_that_writes() {
    let text = read("litefs.yml");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("promote:")));
}

#[test]
fn launch_is_the_main_process_and_knows_its_lease() {
    assert!(read("Dockerfile").contains("\nENTRYPOINT [\"litefs-counter\", \"launch\"]"));
    assert!(litefs("lease", "advertise-url").ends_with(&format!("/#${{{SET_BY_LAUNCH}}}")));
}

#[test]
fn litefs_keeps_its_data_on_the_volume() {
    assert_eq!(fly()["mounts"][0]["destination"].as_str().unwrap(), litefs("data", "dir"));
}

#[test]
fn no_machine_stops_because_nobody_visits_it() {
    let service = &fly()["http_service"];
    assert_eq!(service["auto_stop_machines"].as_str(), Some("off"));
    assert_eq!(service["auto_start_machines"].as_bool(), Some(false));
}

#[test]
fn each_variable_has_one_owner() {
    let (image, fly) = (image_environment(), fly());
    let own = fly.get("env").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    for name in own.keys() {
        assert!(!image.contains_key(name), "{name} is in the Dockerfile and in fly.toml");
        assert!(!SET_BY_FLY.contains(&name.as_str()), "Fly overrides {name}");
    }
    for name in variables(&read("litefs.yml")) {
        let known = name == SET_BY_LAUNCH
            || image.contains_key(&name)
            || own.contains_key(&name)
            || SET_BY_FLY.contains(&name.as_str());
        assert!(known, "litefs.yml uses {name}, which nothing sets");
    }
}

#[test]
fn the_application_runs_as_the_user_that_the_image_has() {
    let dockerfile = read("Dockerfile");
    let (_, user) = dockerfile.split_once("useradd --uid ").unwrap();
    let uid = user.split_whitespace().next().unwrap();
    let yaml = read("litefs.yml");
    assert!(yaml.contains(&format!("--reuid={uid} --regid={uid} ")));
}

#[test]
fn the_image_is_built_by_the_compiler_that_the_tests_use() {
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let version = toolchain["toolchain"]["channel"].as_str().unwrap();
    let (minor, _patch) = version.rsplit_once('.').unwrap();
    assert!(read("Dockerfile").contains(&format!("ARG RUST_IMAGE=rust:{minor}-")), "{version}");
}

#[test]
fn compose_sets_what_fly_sets() {
    let (image, fly, compose) = (image_environment(), fly(), read("compose.yaml"));
    let set = |name: &str| {
        let line = compose.lines().find_map(|line| line.strip_prefix(&format!("  {name}: ")));
        line.unwrap_or_else(|| panic!("compose.yaml sets no {name}")).trim_matches('"').to_owned()
    };
    assert_eq!(set("FLY_APP_NAME"), fly["app"].as_str().unwrap());
    assert_eq!(set("PRIMARY_REGION"), fly["primary_region"].as_str().unwrap());
    for (name, value) in fly["env"].as_table().unwrap() {
        assert_eq!(set(name), value.as_str().unwrap());
    }
    let volume = format!(":{}\"]\n", litefs("data", "dir"));
    assert_eq!(compose.matches(&volume).count(), 4, "an instance without its volume");
    let (app, port) = (format!("--app={}\n", set("FLY_APP_NAME")), format!(":{}\n", image["INTERNAL_PORT"]));
    assert!(compose.contains(&app), "the edge is of another app");
    let instances = compose.lines().filter(|line| line.trim_start().starts_with("- --instance="));
    assert!(
        instances.clone().all(|line| format!("{line}\n").ends_with(&port)),
        "the edge goes past LiteFS's proxy"
    );
    assert_eq!(instances.count(), 4);
}

#[test]
fn compose_builds_each_image_once_from_a_stage_that_there_is() {
    let (dockerfile, compose) = (read("Dockerfile"), read("compose.yaml"));
    let local =
        |line: &str| line.trim().strip_prefix("image: ").is_some_and(|image| image.ends_with(":local"));
    let images = compose.lines().filter(|line| local(line)).count();
    let builds: Vec<&str> = compose.lines().filter(|line| line.trim_start().starts_with("build:")).collect();
    assert_eq!(builds.len(), images, "{builds:?}");
    assert_eq!(compose.matches("pull_policy: never\n").count(), images, "no registry has them");
    let (shared, _) = compose.split_once("\nservices:\n").unwrap();
    assert!(!shared.contains("build:"), "all four instances would build the same image");
    for build in builds {
        let (_, target) = build.split_once("target: ").unwrap();
        let stage = format!(" AS {}\n", target.trim_end_matches(" }"));
        assert!(dockerfile.contains(&stage), "the Dockerfile has no such stage: {build}");
    }
}

/// Docker runs stages at the same time, and two Cargos that unpack the same crate break each other.
#[test]
fn each_stage_of_the_image_has_its_own_registry() {
    let dockerfile = read("Dockerfile");
    let mut owners = BTreeMap::new();
    for stage in dockerfile.split("\nFROM ").skip(1) {
        let name = stage.lines().next().unwrap();
        for cache in stage.split_whitespace().filter(|word| word.starts_with("--mount=type=cache,")) {
            if cache.ends_with("/registry") {
                let owner = *owners.entry(cache).or_insert(name);
                assert_eq!(owner, name, "both have {cache}");
            }
        }
    }
    assert_eq!(owners.len(), 3);
}

fn fly() -> toml::Table {
    read("fly.toml").parse().unwrap()
}

/// The last stage's `ENV` instructions, one variable each, with earlier ones filled in.
fn image_environment() -> BTreeMap<String, String> {
    let dockerfile = read("Dockerfile");
    let (_, last_stage) = dockerfile.rsplit_once("\nFROM ").unwrap();
    let mut environment = BTreeMap::<String, String>::new();
    for variable in last_stage.lines().filter_map(|line| line.strip_prefix("ENV ")) {
        let (name, value) = variable.split_once('=').unwrap();
        let fill_in =
            |value: String, (name, earlier): (&String, &String)| value.replace(&format!("${name}"), earlier);
        let value = environment.iter().fold(value.to_owned(), fill_in);
        environment.insert(name.to_owned(), value);
    }
    environment
}

/// The value of `section.key`, where the key is directly in the section.
fn litefs(section: &str, key: &str) -> String {
    let text = read("litefs.yml");
    let lines = text.lines().skip_while(|line| *line != format!("{section}:")).skip(1);
    let value = lines
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .find_map(|line| line.strip_prefix(&format!("  {key}: ")).map(str::to_owned));
    value.unwrap_or_else(|| panic!("litefs.yml has no {section}.{key}")).trim_matches('"').to_owned()
}

/// The names in `${NAME}`, `${A == B}` and `${A == 'text'}`.
fn variables(text: &str) -> Vec<String> {
    let expressions = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let operands = expressions.flat_map(|(inside, _)| inside.split(['=', '!']));
    let names = operands.map(str::trim).filter(|operand| !operand.is_empty() && !operand.starts_with('\''));
    names.map(str::to_owned).collect()
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_image_gets_every_member_of_the_workspace_that_cargo_has_to_read() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let let_through = read(".dockerignore");
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        let is_let_through = |file: &str| {
            let lines = [format!("!{member}/{file}"), format!("!{member}/src")];
            let_through.lines().any(|line| lines[0] == line || file.starts_with("src/") && lines[1] == line)
        };
        assert!(is_let_through("Cargo.toml"), "{member}/Cargo.toml is kept from the image's build");
        let source = ["src", "src/lib.rs", "src/main.rs"].into_iter().find(|file| is_let_through(file));
        assert!(source.is_some(), "no source of {member}: Cargo refuses a package without a target");
        let is_built = manifest["dependencies"].get(member).is_some();
        assert!(
            !is_built || source == Some("src"),
            "the application is built with {member}: all of it is needed"
        );
    }
}
