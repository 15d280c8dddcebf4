//! What becomes of clicks when something fails: visitors click on a cluster, a fault strikes, and what they saw is
//! checked against what was counted.
//!
//! - [`catalogue`]: every fault
//! - [`breaches`]: the application with one protection taken out, which has to fail
//! - [`report`]: the table
//! - [`recording`]: faults as Prometheus sees them, for the alerts' tests
//! - [`fault`]: what a fault promises, and whether that was kept
//! - `strikes`: how each of them is brought about
//! - [`run`]: one run, from the cluster's start to the verdict
//! - [`load`]: all visitors, clicking and reading
//! - [`visitor`]: one of them, with a browser's memory
//! - [`check`]: the verdict on a history; knows no cluster
//! - [`history`]: what the visitors saw, and what the instances have in the end
//! - `wait`: conditions with a deadline
//!
//! Dependencies point downwards in this list only. The application is known by its answers alone.

pub mod breaches;
pub mod catalogue;
pub mod check;
pub mod fault;
pub mod history;
pub mod load;
pub mod recording;
pub mod report;
pub mod run;
mod strikes;
pub mod visitor;
mod wait;
