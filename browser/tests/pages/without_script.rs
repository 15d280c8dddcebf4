//! Forms do all that is needed.

use std::time::Duration;

use browser::{
    Browser, Relay, Site,
    counter::{DECREMENT, INCREMENT},
    wait::SOON,
};

#[tokio::test]
async fn each_button_counts() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start_without_script().await.unwrap();
    browser.open(&site.url).await.unwrap();
    for (button, count) in [(INCREMENT, 1), (INCREMENT, 2), (DECREMENT, 1), (DECREMENT, 0), (DECREMENT, -1)] {
        browser.click(button).await.unwrap();
        browser.settles_at(count).await.unwrap();
    }
    // Nothing is promised that only script could keep.
    browser.wait_for(r##"document.querySelector("#live").hidden"##, Duration::ZERO).await.unwrap();
    assert_eq!(site.count().await.unwrap(), -1);
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn the_page_tells_what_has_become_of_a_click_and_only_once() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start_without_script().await.unwrap();
    browser.open(&site.url).await.unwrap();
    assert_eq!(browser.text("#story").await.unwrap(), "");
    browser.click(INCREMENT).await.unwrap();
    browser.settles_at(1).await.unwrap();
    let story = browser.text("#story").await.unwrap();
    let told = story.strip_prefix("Your click: written at ").and_then(|rest| rest.strip_suffix(" ms."));
    let (written, milliseconds) = told.and_then(|rest| rest.split_once(", committed, after ")).expect(&story);
    assert!(written.ends_with(" in local") && milliseconds.parse::<u32>().is_ok(), "{story}");

    browser.open(&site.url).await.unwrap();
    browser.settles_at(1).await.unwrap();
    assert_eq!(browser.text("#story").await.unwrap(), "");
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn going_back_and_clicking_again_is_a_new_click() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start_without_script().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.settles_at(1).await.unwrap();
    browser.back().await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.settles_at(2).await.unwrap();
    assert_eq!(site.count().await.unwrap(), 2);
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn a_form_that_is_sent_twice_is_one_click() {
    let site = Site::start().await.unwrap();
    let relay = Relay::start(&site.url).await.unwrap();
    let browser = Browser::start_without_script().await.unwrap();
    browser.open(&relay.url).await.unwrap();
    // So the second click meets the same page.
    relay.hold_answers();
    let both_sent = async {
        relay.has_seen_clicks(2).await.unwrap();
        relay.mend();
    };
    let (clicked, ()) = tokio::join!(browser.click_twice(INCREMENT), both_sent);
    clicked.unwrap();
    browser.settles_at(1).await.unwrap();
    assert_eq!(site.count().await.unwrap(), 1);
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn a_click_that_was_refused_can_be_sent_again() {
    let site = Site::start_full().await.unwrap();
    let browser = Browser::start_without_script().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.tells("main", "This one was not counted").await.unwrap();
    // The next page says the same.
    browser.run("document.body.className = 'old';").await.unwrap();
    browser.click("button.again").await.unwrap();
    browser.wait_for("document.body.className !== 'old'", SOON).await.unwrap();
    browser.tells("main", "This one was not counted").await.unwrap();
    browser.click("a.back").await.unwrap();
    browser.settles_at(1).await.unwrap();
    browser.finish_after(&["503 (Service Unavailable)"]).await.unwrap();
}
