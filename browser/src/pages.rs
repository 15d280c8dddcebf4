//! All pages there are, each by the way that a visitor comes to it.

use anyhow::Result;
use serde_json::json;

use crate::{Browser, Site, counter::INCREMENT, wait::SOON};

/// A page, in a state that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// One that has an address.
    At(&'static str),
    /// A click that was not counted, without script: the button sends it again.
    Refused,
}

/// Each page, with a name for people.
pub const ALL: &[(&str, Page)] = &[
    ("counter", Page::At("/")),
    ("status", Page::At("/status")),
    ("not found", Page::At("/nothing")),
    ("refused click", Page::Refused),
];

/// Goes to a page. [`Page::Refused`] is there on [`Site::start_full`].
pub async fn visit(browser: &Browser, site: &Site, page: Page) -> Result<()> {
    match page {
        Page::At("/") => {
            browser.open(&site.url).await?;
            browser.is_live().await
        }
        Page::At(path) => browser.open(&format!("{}{path}", site.url)).await,
        Page::Refused => {
            let script =
                |disabled| browser.cdp("Emulation.setScriptExecutionDisabled", json!({"value": disabled}));
            script(true).await?;
            browser.open(&site.url).await?;
            browser.click(INCREMENT).await?;
            browser.wait_for("document.querySelector('button.again')", SOON).await?;
            script(false).await.map(drop)
        }
    }
}
