//! `litefs-counter handover`: an operator's way to move the primary.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time;

use crate::{
    config::Config,
    instance::{Instance, InstanceId, Role},
};

/// How long LiteFS may take to say who is primary.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// How long a hand-over may take. It takes well under a second; LiteFS itself gives up after 5 s.
const LONGEST: Duration = Duration::from_secs(20);

/// Asks the primary's application, and returns who has taken over.
pub async fn run(config: &Config, to: Option<&InstanceId>) -> anyhow::Result<String> {
    ensure!(
        config.litefs_dir.is_some(),
        "LITEFS_DIR is not set: a standalone instance has nobody to hand over to"
    );
    let address = config.private_addr.as_ref().context(
        "PRIVATE_ADDR is not set: that is where the primary's application takes the order, on the private network",
    )?;
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let instance = Instance::start(config.instance());
    let mut role = instance.watch();
    let known =
        time::timeout(FIRST_WORD, role.wait_for(|role| !matches!(role, Ok(Role::NoPrimary) | Err(_))));
    if known.await.is_err() {
        match instance.role() {
            Err(unreachable) => bail!(unreachable),
            Ok(_) => bail!("no primary is known at this moment; LiteFS elects one by itself"),
        }
    }
    let primary = instance.primary().context("no primary is known any more")?;
    let host = instance.private_address(&primary).context("FLY_APP_NAME is not set")?;
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(LONGEST).build()?;
    let order = client.post(format!("http://{host}:{port}/handover"));
    let order = order.body(to.map(ToString::to_string).unwrap_or_default());
    let answer =
        order.send().await.with_context(|| format!("the application of {primary} does not answer"))?;
    let is_done = answer.status().is_success();
    let text = answer.text().await.unwrap_or_default().trim().to_owned();
    ensure!(is_done, "{primary} is still primary: {text}");
    Ok(format!("{text} is primary now; it was {primary}."))
}
