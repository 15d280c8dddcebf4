//! What becomes of clicks when the network or the application goes, and comes back.

use std::time::Duration;

use anyhow::ensure;
use browser::{
    Browser, Relay, Site,
    counter::INCREMENT,
    wait::{SOON, eventually},
};
use serde_json::Value;

/// What Chromium says of a request that the fault broke.
const FAULTS: &[&str] = &["net::ERR_"];
/// The page waits for two words of the server that do not come, which takes 35 s.
const SILENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn clicks_without_a_network_are_kept_and_counted_once_when_it_is_back() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();

    browser.go_offline().await.unwrap();
    browser.tells("#stream", "Connection lost").await.unwrap();
    browser.click_times(INCREMENT, 3).await.unwrap();
    browser.tells("#story", "Not saved yet").await.unwrap();
    assert_eq!(browser.count().await.unwrap(), 3);
    assert_eq!(site.count().await.unwrap(), 0);
    // Seen when the network is back, and not before.
    site.click("increment").await.unwrap();

    browser.go_online().await.unwrap();
    browser.is_live().await.unwrap();
    browser.tells("#story", "Your click: written at").await.unwrap();
    browser.settles_at(4).await.unwrap();
    assert_eq!(site.count().await.unwrap(), 4);
    browser.finish_after(FAULTS).await.unwrap();
}

#[tokio::test]
async fn a_click_whose_answer_is_lost_is_counted_once() {
    let site = Site::start().await.unwrap();
    let relay = Relay::start(&site.url).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&relay.url).await.unwrap();
    browser.is_live().await.unwrap();

    relay.hold_answers();
    browser.click(INCREMENT).await.unwrap();
    eventually("the click is counted, and nobody tells", SOON, async || {
        let count = site.count().await?;
        ensure!(count == 1, "{count}");
        Ok(())
    })
    .await
    .unwrap();
    relay.break_off();
    browser.tells("#stream", "Connection lost").await.unwrap();
    browser.tells("#story", "Not saved yet").await.unwrap();
    assert_eq!(browser.count().await.unwrap(), 1);

    relay.mend();
    browser.is_live().await.unwrap();
    browser.tells("#story", "Your click: written at").await.unwrap();
    browser.settles_at(1).await.unwrap();
    assert_eq!(site.count().await.unwrap(), 1);
    browser.finish_after(FAULTS).await.unwrap();
}

#[tokio::test]
async fn a_page_goes_on_when_its_application_is_killed_and_started_again() {
    let mut site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.settles_at(1).await.unwrap();

    site.kill().await.unwrap();
    browser.tells("#stream", "Connection lost").await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.tells("#story", "Not saved yet").await.unwrap();

    site.restart().await.unwrap();
    browser.is_live().await.unwrap();
    browser.settles_at(2).await.unwrap();
    site.click("increment").await.unwrap();
    browser.settles_at(3).await.unwrap();
    browser.finish_after(FAULTS).await.unwrap();
}

#[tokio::test]
async fn a_click_whose_answer_never_comes_is_sent_again_and_counted_once() {
    let site = Site::start().await.unwrap();
    let relay = Relay::start(&site.url).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&relay.url).await.unwrap();
    browser.is_live().await.unwrap();

    relay.hold_answers();
    browser.click(INCREMENT).await.unwrap();
    // No connection breaks: the page itself has to lose its patience.
    relay.has_seen_clicks(2).await.unwrap();
    browser.tells("#story", "Not saved yet").await.unwrap();
    assert_eq!(browser.count().await.unwrap(), 1);

    relay.mend();
    browser.tells("#story", "Your click: written at").await.unwrap();
    browser.settles_at(1).await.unwrap();
    assert_eq!(site.count().await.unwrap(), 1);
    browser.finish_after(FAULTS).await.unwrap();
}

/// One is cut off without a word, the other has nothing to tell for as long: only the first may think that it is.
#[tokio::test]
async fn a_silent_stream_is_opened_again_and_a_quiet_one_is_not() {
    let site = Site::start().await.unwrap();
    let relay = Relay::start(&site.url).await.unwrap();
    let quiet = Browser::start().await.unwrap();
    quiet.open(&site.url).await.unwrap();
    quiet.is_live().await.unwrap();
    quiet.record("#stream").await.unwrap();
    let silent = Browser::start().await.unwrap();
    silent.open(&relay.url).await.unwrap();
    silent.is_live().await.unwrap();

    relay.hold_answers();
    let lost = r##"document.querySelector("#stream").textContent.includes("Connection lost")"##;
    silent.wait_for(lost, SILENCE).await.unwrap();
    // Its patience began before.
    assert_eq!(quiet.recorded().await.unwrap(), ["Live"]);
    let traffic = quiet.traffic().await.unwrap();
    let opens = |event: &&Value| {
        let url = event["params"]["request"]["url"].as_str();
        event["method"] == "Network.requestWillBeSent" && url.is_some_and(|url| url.contains("/events"))
    };
    assert_eq!(traffic.iter().filter(opens).count(), 1);

    site.click("increment").await.unwrap();
    quiet.settles_at(1).await.unwrap();
    assert_eq!(silent.count().await.unwrap(), 0);
    relay.mend();
    silent.is_live().await.unwrap();
    silent.settles_at(1).await.unwrap();
    quiet.finish().await.unwrap();
    silent.finish_after(FAULTS).await.unwrap();
}
