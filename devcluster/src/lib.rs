//! stub

pub mod edge;
pub mod geography;
