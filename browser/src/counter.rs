//! The counter's page, looked at and clicked as a visitor does.

use anyhow::{Context as _, Result, anyhow};

use crate::{
    Browser,
    wait::{SOON, eventually},
};

/// The button that counts up.
pub const INCREMENT: &str = "button[value=increment]";
/// The button that counts down.
pub const DECREMENT: &str = "button[value=decrement]";

impl Browser {
    /// The number that the page shows.
    pub async fn count(&self) -> Result<i64> {
        let text = self.text("#count").await?;
        text.replace('−', "-").parse().with_context(|| format!("not a number: {text}"))
    }

    /// An element's text.
    pub async fn text(&self, selector: &str) -> Result<String> {
        let text = self.run(&format!("return document.querySelector({selector:?}).textContent;")).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page shows this number, and has the server's word for it.
    pub async fn settles_at(&self, count: i64) -> Result<()> {
        let number = r##"document.querySelector("#count")"##;
        let count = count.to_string().replace('-', "−");
        let condition = format!(r#"{number}.textContent === "{count}" && !{number}.matches(".unsettled")"#);
        self.wait_for(&condition, SOON).await
    }

    /// Waits until an element holds this text.
    pub async fn tells(&self, selector: &str, text: &str) -> Result<()> {
        let condition = format!("document.querySelector({selector:?}).textContent.includes({text:?})");
        self.wait_for(&condition, SOON).await
    }

    /// Waits until the page is live: until its script runs, and its stream has brought something.
    pub async fn is_live(&self) -> Result<()> {
        self.tells("#stream", "Live").await
    }

    /// Counts up by one, by a click that another candidate confirms. Shortly after a cluster's start the primary still
    /// acknowledges alone: such a click is taken back.
    pub async fn click_confirmed(&self) -> Result<()> {
        let count = self.count().await?;
        eventually("a click is confirmed", SOON, async || {
            self.click(INCREMENT).await?;
            self.settles_at(count + 1).await?;
            let story = self.text("#story").await?;
            if story.contains("confirmed by") {
                return Ok(());
            }
            self.click(DECREMENT).await?;
            self.settles_at(count).await?;
            Err(anyhow!("{story}"))
        })
        .await
    }

    /// Clicks so fast that nothing comes between.
    pub async fn click_times(&self, selector: &str, times: usize) -> Result<()> {
        let script =
            format!("for (let n = 0; n < {times}; n++) document.querySelector({selector:?}).click();");
        self.run(&script).await.map(drop)
    }

    /// From now on keeps each text that these elements are given.
    pub async fn record(&self, selector: &str) -> Result<()> {
        let script = format!(
            "const elements = Array.from(document.querySelectorAll({selector:?}));
            window.recorded = elements.map((element) => element.textContent);
            const keep = (changes) => {{
                for (const element of new Set(changes.map((change) => change.target))) window.recorded.push(element.textContent);
            }};
            const observer = new MutationObserver(keep);
            for (const element of elements) observer.observe(element, {{ childList: true }});"
        );
        self.run(&script).await.map(drop)
    }

    /// What was kept, from the texts at the beginning on.
    pub async fn recorded(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.run("return window.recorded;").await?)?)
    }
}
