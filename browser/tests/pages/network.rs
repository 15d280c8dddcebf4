//! What becomes of clicks when the network or the application goes, and comes back.

use std::time::Duration;

use anyhow::ensure;
use browser::{
    Browser, Relay, Site,
    counter::{DECREMENT, INCREMENT},
    wait::{SOON, eventually},
};
use serde_json::Value;
use tokio::time::sleep;

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
    browser.record("#announcer").await.unwrap();

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
    // In all that time nobody was told a count that was not certain.
    browser.tells("#announcer", "The count is").await.unwrap();
    let told = ["", "Not saved yet. Trying again.", "The count is 1"];
    assert_eq!(browser.recorded().await.unwrap(), told);
    browser.finish_after(FAULTS).await.unwrap();
}

#[tokio::test]
async fn those_who_do_not_see_it_are_told_once_what_is_lost_and_what_is_back() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    browser.record("[role=status]").await.unwrap();
    // What stays as it is, is not told again.
    site.click("increment").await.unwrap();
    browser.tells("#announcer", "The count is 1").await.unwrap();

    browser.go_offline().await.unwrap();
    browser.tells("#stream", "Connection lost").await.unwrap();
    let lost = browser.text("#stream").await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.tells("#announcer", "Not saved yet").await.unwrap();
    browser.go_online().await.unwrap();
    browser.tells("#announcer", "The count is 2").await.unwrap();

    let before = ["", "Live", "Standalone: this instance writes"];
    let told = ["The count is 1", &lost, "Not saved yet. Trying again.", "Live", "The count is 2"]
        .map(str::to_owned);
    let mut recorded = browser.recorded().await.unwrap();
    let meanwhile = recorded.split_off(before.len());
    assert_eq!((recorded, meanwhile), (before.map(str::to_owned).to_vec(), told.to_vec()));
    browser.finish_after(FAULTS).await.unwrap();
}

#[tokio::test]
async fn a_click_that_succeeds_does_not_hide_those_that_wait() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    let leaving_is_asked = async || {
        let left =
            browser.run("return dispatchEvent(new Event('beforeunload', { cancelable: true }));").await;
        left.unwrap() == false
    };
    // Of two buttons, one fails.
    let fail = "const { fetch } = window;
        window.fetch = (url, what) => what.body.get('intent') === 'decrement' && !window.isMended
            ? Promise.reject(new TypeError('by the test')) : fetch(url, what);";
    browser.run(fail).await.unwrap();
    browser.click_times(DECREMENT, 3).await.unwrap();
    browser.tells("#story", "Not saved yet").await.unwrap();
    assert!(leaving_is_asked().await);

    browser.record("#story").await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    eventually("the other click is counted", SOON, async || {
        let count = site.count().await?;
        ensure!(count == 1, "{count}");
        Ok(())
    })
    .await
    .unwrap();
    browser.run("window.isMended = true;").await.unwrap();
    browser.settles_at(-2).await.unwrap();
    let mut told = browser.recorded().await.unwrap();
    told.dedup();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("Not saved yet") && told[1].starts_with("Your click"), "{told:?}");
    assert!(!leaving_is_asked().await);
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn whoever_leaves_at_once_takes_no_click_back() {
    let site = Site::start().await.unwrap();
    let relay = Relay::start(&site.url).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&relay.url).await.unwrap();
    browser.is_live().await.unwrap();

    relay.hold_answers();
    browser.click_times(INCREMENT, 10).await.unwrap();
    // Chromium has six connections to a site, and the stream has one of them: the others wait in the browser.
    relay.has_seen_clicks(5).await.unwrap();
    browser.close_page().await.unwrap();
    // When Chromium gives up what is not kept alive cannot be seen: soon after.
    sleep(Duration::from_secs(1)).await;
    relay.mend();
    eventually("all clicks are counted", SOON, async || {
        let count = site.count().await?;
        ensure!(count == 10, "{count}");
        Ok(())
    })
    .await
    .unwrap();
    browser.finish_after(FAULTS).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_a_proxy_refuses_is_opened_again() {
    let site = Site::start().await.unwrap();
    let relay = Relay::start(&site.url).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&relay.url).await.unwrap();
    browser.is_live().await.unwrap();
    for status in ["502 Bad Gateway", "504 Gateway Timeout"] {
        relay.break_off();
        browser.tells("#stream", "Connection lost").await.unwrap();
        relay.answer_with(status);
        let code = &status[..3];
        eventually("the stream is refused", SOON, async || {
            let complaints = browser.complaints().await?;
            ensure!(complaints.iter().any(|complaint| complaint.contains(code)), "{complaints:?}");
            Ok(())
        })
        .await
        .unwrap();
        relay.mend();
        browser.is_live().await.unwrap();
    }
    site.click("increment").await.unwrap();
    browser.settles_at(1).await.unwrap();
    browser.finish_after(&["net::ERR_", "502 (Bad Gateway)", "504 (Gateway Timeout)"]).await.unwrap();
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
