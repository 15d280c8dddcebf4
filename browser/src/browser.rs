//! A Chromium with a profile of its own, driven through chromedriver; and what it complains of.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use thirtyfour::{By, ChromeCapabilities, ChromiumLikeCapabilities as _, Key, WebDriver};

use crate::{
    driver::Driver,
    wait::{SOON, eventually},
};

/// No display, no sandbox (root has none), and no requests of Chromium's own.
pub const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--lang=en-US",
    "--window-size=1000,800",
];
/// Chromium ends when the other end of this pipe does, even if chromedriver is killed.
const PIPE: &str = "--remote-debugging-pipe";

/// How long somebody waits who clicks again.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// A browser. Each one has to end with [`Browser::finish`], so that no complaint of Chromium is missed.
pub struct Browser {
    driver: WebDriver,
    must_finish: bool,
    _process: Driver,
}

/// What the visitor has chosen for all pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Scheme {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Light, Self::Dark];

    /// As CSS calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

impl Browser {
    /// Starts one, which takes about a second.
    pub async fn start() -> Result<Self> {
        let process = Driver::start().await?;
        let mut wanted = ChromeCapabilities::new();
        for flag in FLAGS.iter().chain([&PIPE]) {
            wanted.add_arg(flag)?;
        }
        let logs = json!({"browser": "ALL", "performance": "ALL"});
        wanted.as_mut().set("goog:loggingPrefs", logs)?;
        let driver = WebDriver::new(&process.url, wanted).await.context("Chromium does not start")?;
        driver.set_script_timeout(SOON).await?;
        driver.set_page_load_timeout(SOON).await?;
        Ok(Self { driver, must_finish: true, _process: process })
    }

    /// The same, with script turned off by its visitor.
    pub async fn start_without_script() -> Result<Self> {
        let browser = Self::start().await?;
        browser.cdp("Emulation.setScriptExecutionDisabled", json!({"value": true})).await?;
        Ok(browser)
    }

    /// For a program that hands errors on, which a panic at the browser's end would hide: none if it is not finished.
    #[must_use]
    pub fn handing_errors_on(mut self) -> Self {
        self.must_finish = false;
        self
    }

    /// Goes to an address, and waits until it is loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.driver.goto(url).await.with_context(|| format!("cannot open {url}"))
    }

    /// Closes the page, as people do who have seen enough; an empty one stays.
    pub async fn close_page(&self) -> Result<()> {
        let empty = self.driver.new_tab().await?;
        self.driver.close_window().await?;
        Ok(self.driver.switch_to_window(empty).await?)
    }

    /// As its button does.
    pub async fn back(&self) -> Result<()> {
        Ok(self.driver.back().await?)
    }

    /// As its button does.
    pub async fn forward(&self) -> Result<()> {
        Ok(self.driver.forward().await?)
    }

    /// Moves the mouse onto the element and clicks.
    pub async fn click(&self, selector: &str) -> Result<()> {
        Ok(self.driver.find(By::Css(selector)).await?.click().await?)
    }

    /// Clicks twice, as people do who think that nothing has happened.
    pub async fn click_twice(&self, selector: &str) -> Result<()> {
        let element = self.driver.find(By::Css(selector)).await?;
        let hand =
            self.driver.action_chain_with_delay(None, Some(IMPATIENCE)).move_to_element_center(&element);
        // The way to almost the same place is the pause between the two.
        Ok(hand.click().move_by_offset(1, 1).click().perform().await?)
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: Key) -> Result<()> {
        Ok(self.driver.action_chain().send_keys(key).perform().await?)
    }

    /// What the body of a function returns that runs in the page.
    pub async fn run(&self, script: &str) -> Result<Value> {
        let ran = self.driver.execute(script, Vec::new()).await;
        Ok(ran.with_context(|| format!("in the page: {}", shortened(script)))?.json().clone())
    }

    /// The same for one that hands what it found to `done`.
    pub async fn run_async(&self, script: &str) -> Result<Value> {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        let ran = self.driver.execute_async(&script, Vec::new()).await;
        Ok(ran.with_context(|| format!("in the page: {}", shortened(&script)))?.json().clone())
    }

    /// Waits until an expression holds in the page; fails with what the page shows.
    pub async fn wait_for(&self, condition: &str, within: Duration) -> Result<()> {
        eventually(condition, within, async || {
            let look = format!("return [Boolean({condition}), document.body.innerText];");
            let seen = self.run(&look).await?;
            ensure!(seen[0] == true, "{}", seen[1].as_str().unwrap_or_default());
            Ok(())
        })
        .await
    }

    /// A command of Chromium's own protocol.
    pub async fn cdp(&self, method: &str, parameters: Value) -> Result<Value> {
        self.driver.cdp().send_raw(method, parameters).await.with_context(|| method.to_owned())
    }

    /// Has the visitor prefer these colours.
    pub async fn prefer(&self, scheme: Scheme) -> Result<()> {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme.name()});
        self.cdp("Emulation.setEmulatedMedia", json!({"features": [feature]})).await?;
        Ok(())
    }

    /// Has the visitor prefer that nothing moves.
    pub async fn prefer_no_motion(&self) -> Result<()> {
        let feature = json!({"name": "prefers-reduced-motion", "value": "reduce"});
        self.cdp("Emulation.setEmulatedMedia", json!({"features": [feature]})).await?;
        Ok(())
    }

    /// Takes the network away, as a tunnel does.
    pub async fn go_offline(&self) -> Result<()> {
        self.network(true, Duration::ZERO).await
    }

    /// Gives it back.
    pub async fn go_online(&self) -> Result<()> {
        self.network(false, Duration::ZERO).await
    }

    /// From now on each answer takes that long.
    pub async fn slow_down(&self, latency: Duration) -> Result<()> {
        self.network(false, latency).await
    }

    async fn network(&self, offline: bool, latency: Duration) -> Result<()> {
        let conditions = json!({
            "offline": offline, "latency": latency.as_millis(), "downloadThroughput": -1, "uploadThroughput": -1,
        });
        self.cdp("Network.enable", json!({})).await?;
        self.cdp("Network.emulateNetworkConditions", conditions).await?;
        Ok(())
    }

    /// A window of this size in CSS pixels, each of which is `scale` pixels of the screen. Narrow ones are phones.
    pub async fn resize(&self, width: u32, height: u32, scale: u32) -> Result<()> {
        let mobile = width < 500;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile});
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await?;
        Ok(())
    }

    /// All layout shifts since the page was opened, those after a click included: how much, and what moved.
    pub async fn shifts(&self) -> Result<Vec<String>> {
        // Two frames later what was changed before has been drawn.
        let script = "const seen = [];
            const text = ({ node, previousRect: { x, y }, currentRect: now }) =>
                `${(node?.outerHTML ?? node?.data ?? 'what is gone').slice(0, 100)} from ${x},${y} to ${now.x},${now.y}`;
            const keep = (shift) => seen.push(`${shift.value}: ${shift.sources.map(text).join('; ')}`);
            new PerformanceObserver((list) => list.getEntries().forEach(keep))
                .observe({ type: 'layout-shift', buffered: true });
            const frame = (then) => requestAnimationFrame(() => setTimeout(then));
            frame(() => frame(() => done(seen)));";
        Ok(serde_json::from_value(self.run_async(script).await?)?)
    }

    /// What the window shows, as PNG.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        Ok(self.driver.screenshot_as_png().await?)
    }

    /// The same, and what lies below it.
    pub async fn whole_picture(&self) -> Result<Vec<u8>> {
        let metrics = self.cdp("Page.getLayoutMetrics", json!({})).await?;
        let mut clip = metrics["cssContentSize"].clone();
        clip["scale"] = 1.into();
        let options = json!({"captureBeyondViewport": true, "clip": clip});
        let picture = self.cdp("Page.captureScreenshot", options).await?;
        Ok(BASE64_STANDARD.decode(picture["data"].as_str().context("no picture")?)?)
    }

    /// What Chromium has complained of since the last call: errors and warnings in the console, uncaught exceptions,
    /// violations of the policy, requests that failed.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.driver.get_log("browser").await?;
        let grave = entries.into_iter().filter(|entry| ["WARNING", "SEVERE"].contains(&&*entry.level));
        Ok(grave.map(|entry| entry.message).collect())
    }

    /// What it has asked for and received since the last call: events of the protocol's domain Network.
    pub async fn traffic(&self) -> Result<Vec<Value>> {
        let entries = self.driver.get_log("performance").await?;
        let messages =
            entries.iter().map(|entry| Ok(serde_json::from_str::<Value>(&entry.message)?["message"].take()));
        messages.collect()
    }

    /// Ends it. Fails if it has complained of anything.
    pub async fn finish(self) -> Result<()> {
        self.finish_after(&[]).await
    }

    /// The same, after faults that Chromium may report: a complaint is expected if it holds one of these texts.
    pub async fn finish_after(mut self, expected: &[&str]) -> Result<()> {
        let complaints = self.complaints().await;
        self.must_finish = false;
        self.driver.clone().quit().await?;
        let mut unexpected = complaints?;
        unexpected.retain(|complaint| !expected.iter().any(|text| complaint.contains(text)));
        if unexpected.is_empty() { Ok(()) } else { Err(anyhow!("in the console: {unexpected:#?}")) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Otherwise it would wait here for an answer that this very thread has to read. The browser ends with its driver.
        let _ = self.driver.clone().leak();
        let is_known = !self.must_finish || thread::panicking();
        assert!(is_known, "a browser was not finished: what it complains of is not known");
    }
}

fn shortened(script: &str) -> &str {
    let end = script.char_indices().nth(200).map_or(script.len(), |(end, _)| end);
    &script[..end]
}
