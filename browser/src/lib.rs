//! The pages in a real Chromium, as visitors meet them.
//!
//! - [`browser`]: a Chromium, and what it complains of
//! - [`counter`]: the counter's page, looked at and clicked
//! - [`pages`]: all pages there are
//! - [`axe`]: the rules of accessibility
//! - [`site`]: the application alone, as a process
//! - [`relay`]: a network before it that holds answers back
//! - [`wait`]: conditions with a deadline
//!
//! `tests/pages` needs Chromium, `tests/regions` a cluster as well; `src/bin/screenshots.rs` takes the pictures.
//! `cargo xtask setup` installs what they need.

pub mod axe;
pub mod browser;
pub mod counter;
mod driver;
pub mod pages;
pub mod relay;
pub mod site;
pub mod wait;

pub use browser::Browser;
pub use relay::Relay;
pub use site::Site;
pub use thirtyfour::Key;
