//! What only the machine itself can tell.

use std::{fs, path::Path, time::Duration};

use reqwest::Url;

use super::{
    Surroundings,
    deployment::{CONSUL_URL, Deployment},
    report::{Place, Report},
    url::{NEVER, client, clock, never_synced, reason},
};
use crate::cluster_id;

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn examine(here: &Surroundings, deployment: &Deployment, report: &mut Report) {
    if !here.fuse.exists() {
        let device = here.fuse.display().to_string();
        report.find(
            "fuse-missing",
            Place::of(&device),
            format!("There is no {device}: LiteFS cannot mount, and ends."),
            "On Fly it is there. Elsewhere start the container with --device /dev/fuse --cap-add SYS_ADMIN.",
        );
    }
    consul(deployment, report).await;
    let lag = Path::new(deployment.litefs.mount()).join(".lag");
    match fs::read_to_string(&lag) {
        Ok(text) if text.trim().parse() == Ok(NEVER) => {
            never_synced(Place::of(lag.display().to_string()), "This machine", report);
        }
        Ok(_) => {}
        Err(error) => report.leave_out(format!("whether LiteFS has caught up: {}: {error}", lag.display())),
    }
}

async fn consul(deployment: &Deployment, report: &mut Report) {
    let Some(text) = deployment.litefs.text("lease.consul.url") else { return };
    let place = Place::of("environment").key(CONSUL_URL);
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(mut url) = url else {
        return report.find(
            "consul-url-missing",
            place,
            "It is no http(s)://:TOKEN@HOST/PREFIX: LiteFS does not start.",
            "Run `fly consul attach`.",
        );
    };
    let token = cluster_id::token(&url);
    let host = url.host_str().unwrap_or_default().to_owned();
    // A URL with a host always takes them.
    let _ = (url.set_password(None), url.set_username(""));
    url.set_path("/v1/status/leader");
    let asked = match client(&url, PATIENCE) {
        Ok(client) => {
            let request = client.get(url);
            match token {
                Some(token) => request.header("X-Consul-Token", token),
                None => request,
            }
            .send()
            .await
        }
        Err(error) => Err(error),
    };
    match asked {
        // Whoever answers is there; what this token may ask for is LiteFS's own matter.
        Ok(answer) if !answer.status().is_server_error() => clock(&answer, Place::of(host), report),
        answer => {
            let said = match answer {
                Ok(answer) => format!("it answers {}", answer.status()),
                Err(error) => reason(&error),
            };
            report.find(
                "consul-unreachable",
                place,
                format!("Consul at {host} is not reached: {said}. A LiteFS that starts waits for it; nobody can become primary."),
                "Is it the URL that `fly consul attach` set? Does the name resolve on this machine?",
            );
        }
    }
}
