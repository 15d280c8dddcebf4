//! The edge, asked over HTTP by visitors, with real servers on loopback as instances.

mod headers;
mod replays;
mod routing;
mod streams;
mod support;
mod uploads;
