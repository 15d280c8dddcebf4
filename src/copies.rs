//! `litefs-counter backup` and `restore`: what `operations` has to know of this application to copy its database.

use std::path::Path;

use anyhow::Context;
use operations::{
    Schema,
    backup::{self, Source},
    restore::{self, Cluster, Lost, Target},
};

use crate::{
    config::Config,
    counter::{MIGRATIONS, SUMMARY},
    instance::{Instance, InstanceId, LiteFs},
};

/// LiteFS's own port, on every instance.
const LITEFS: u16 = 20202;

/// Writes the database into `file`.
pub async fn backup(config: &Config, file: &Path) -> anyhow::Result<String> {
    let litefs = config.instance().litefs;
    let source = match &litefs {
        None => Source::File(&config.database),
        Some(LiteFs { url, database, .. }) => Source::LiteFs { url, database },
    };
    backup::run(source, schema(), file).await
}

/// Replaces the database by `file`. `lost` tells that all nodes have lost their data, and which of them cannot be asked.
pub async fn restore(config: &Config, file: &Path, lost: Option<&Vec<InstanceId>>) -> anyhow::Result<String> {
    let target = match config.instance().litefs {
        None => Target::File(&config.database),
        Some(litefs) => Target::LiteFs(cluster(config, litefs, lost).await?),
    };
    restore::run(target, schema(), file).await
}

async fn cluster(config: &Config, litefs: LiteFs, lost: Option<&Vec<InstanceId>>) -> anyhow::Result<Cluster> {
    let port =
        config.private_addr.as_ref().and_then(|address| address.rsplit_once(':')).map(|(_, port)| port);
    let port = port.context(
        "PRIVATE_ADDR is not set: that is where the application is told to write nothing while its database is replaced",
    )?;
    let this = Instance::start(config.instance());
    let instances = this.instances().await?.into_iter().filter_map(|listed| {
        let host = this.private_address(&listed.id)?;
        let is_this = listed.id == *this.id();
        Some(restore::Instance {
            id: listed.id.to_string(),
            litefs: if is_this { litefs.url.clone() } else { format!("http://{host}:{LITEFS}") },
            application: format!("http://{host}:{port}"),
        })
    });
    Ok(Cluster {
        database: litefs.database,
        this: this.id().to_string(),
        instances: instances.collect(),
        consul: litefs.consul.map(|at| operations::ConsulKey { url: at.url, key: at.key }),
        lost: lost.map(|without| Lost { without: without.iter().map(ToString::to_string).collect() }),
    })
}

fn schema() -> Schema<'static> {
    Schema { migrations: &MIGRATIONS, summary: SUMMARY }
}
