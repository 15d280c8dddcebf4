//! A next version with one more migration, instance by instance.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use devcluster::{instance::Instance, variant::Variant};

use super::{NEVER, processes::ended_well};
use crate::{
    run::{Scene, checkout},
    wait::eventually,
};

/// Where each instance is in a deploy: the order in which they are replaced, by their places in the cluster.
pub type Order = [usize; 4];

/// The next version.
pub const NEXT: Variant<'static> = Variant {
    name: "next",
    migrations: &[("0000_next.sql", "create table next_version (id integer primary key) strict;\n")],
    edits: &[],
};

/// All orders there are.
pub fn orders() -> Vec<Order> {
    let mut orders = Vec::new();
    for first in 0..4 {
        for second in (0..4).filter(|place| *place != first) {
            for third in (0..4).filter(|place| ![first, second].contains(place)) {
                orders.push([first, second, third, 6 - first - second - third]);
            }
        }
    }
    orders
}

/// As Fly does it: one instance after the other is stopped, replaced and waited for until it is healthy.
pub async fn roll(scene: &Scene, order: Order) -> Result<()> {
    let next: PathBuf = NEXT.build(checkout())?;
    for place in order {
        let instance = &scene.cluster.instances()[place];
        ended_well(instance, instance.stop().await?)?;
        instance.set_app(&next);
        instance.start().await?;
        eventually("it is healthy", NEVER, async || {
            let answer = reqwest::get(format!("{}/healthcheck", instance.url(8080))).await?;
            if answer.status().is_success() { Ok(()) } else { bail!("{}", answer.text().await?) }
        })
        .await?;
    }
    for instance in scene.cluster.instances() {
        eventually("the migration is here", NEVER, async || has_migration(instance).await).await?;
    }
    Ok(())
}

async fn has_migration(instance: &Instance) -> Result<()> {
    let query = ["sqlite3", "-readonly", "/litefs/sqlite.db", "select count(*) from next_version"];
    let output = instance.run(&query).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_order_comes_once() {
        let orders: BTreeSet<Order> = orders().into_iter().collect();
        assert_eq!(orders.len(), 24);
        for order in orders {
            assert_eq!(BTreeSet::from(order).len(), 4, "{order:?}");
        }
    }
}
