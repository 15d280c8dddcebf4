//! What becomes of clicks when the network or the application goes, and comes back.

use std::time::Duration;

use anyhow::ensure;
use browser::{
    Browser, Relay, Site,
    counter::INCREMENT,
    wait::{SOON, eventually},
};

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

#[tokio::test]
async fn a_page_whose_stream_falls_silent_says_so_and_opens_another_one() {
    let site = Site::start().await.unwrap();
    let relay = Relay::start(&site.url).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&relay.url).await.unwrap();
    browser.is_live().await.unwrap();

    relay.hold_answers();
    site.click("increment").await.unwrap();
    let lost = r##"document.querySelector("#stream").textContent.includes("Connection lost")"##;
    browser.wait_for(lost, SILENCE).await.unwrap();
    assert_eq!(browser.count().await.unwrap(), 0);

    relay.mend();
    browser.is_live().await.unwrap();
    browser.settles_at(1).await.unwrap();
    browser.finish_after(FAULTS).await.unwrap();
}
