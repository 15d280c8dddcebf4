//! How each fault is brought about. All of them end by themselves: afterwards nothing is cut, stopped or full.
//!
//! - `processes`: signals, hand-overs and restarts
//! - `network`: cuts, and Consul
//! - `data`: cookies, long reads, disks
//! - `deploys`: a next version, instance by instance
//! - `chance`: several of them, by chance

pub mod chance;
pub mod data;
pub mod deploys;
pub mod network;
pub mod processes;

use std::time::Duration;

/// From LiteFS's end to writes on the next primary, at most, where somebody is left to release its lease. It takes one to
/// two seconds, and more on a machine that is busy.
pub const RELEASE: Duration = Duration::from_secs(5);
/// From a primary's end to writes on the next one, at most; with LiteFS's and Consul's defaults.
pub const ELECTION: Duration = Duration::from_secs(24);
/// The same on a slow machine, before it counts as never.
pub const NEVER: Duration = Duration::from_mins(2);
