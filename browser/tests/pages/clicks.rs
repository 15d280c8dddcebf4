//! Clicks with script: no new page, nothing lost, no number that comes back.

use std::time::Duration;

use browser::{
    Browser, Site,
    counter::{DECREMENT, INCREMENT},
    wait::SOON,
};
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn ten_fast_clicks_are_ten() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    browser.click_times(INCREMENT, 10).await.unwrap();
    // At once, before any answer.
    assert_eq!(browser.count().await.unwrap(), 10);
    browser.settles_at(10).await.unwrap();
    browser.tells("#story", "Your click: written at").await.unwrap();
    assert_eq!(site.count().await.unwrap(), 10);
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn the_number_never_goes_back_while_somebody_clicks() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    // Answers and events overtake each other.
    browser.slow_down(Duration::from_millis(40)).await.unwrap();
    browser.record("#count").await.unwrap();
    for _ in 0..20 {
        browser.click(INCREMENT).await.unwrap();
        site.click("increment").await.unwrap();
    }
    browser.settles_at(40).await.unwrap();

    let shown = browser.recorded().await.unwrap();
    let numbers: Vec<i64> = shown.iter().map(|text| text.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(numbers.len() > 20, "{numbers:?}");
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn clicks_of_others_show_by_themselves() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    for count in 1..=3 {
        site.click("increment").await.unwrap();
        browser.settles_at(count).await.unwrap();
    }
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn below_zero_there_is_a_minus_sign_and_no_hyphen() {
    let site = Site::start_at(-1).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    assert_eq!(browser.text("#count").await.unwrap(), "−1");
    browser.is_live().await.unwrap();
    browser.click(DECREMENT).await.unwrap();
    browser.settles_at(-2).await.unwrap();
    assert_eq!(browser.text("#count").await.unwrap(), "−2");
    site.click("decrement").await.unwrap();
    browser.tells("#announcer", "The count is −3").await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn the_count_is_announced_once_when_it_has_settled() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    browser.record("#announcer").await.unwrap();
    browser.click_times(INCREMENT, 100).await.unwrap();
    browser.tells("#announcer", "The count is 100").await.unwrap();
    browser.click(DECREMENT).await.unwrap();
    browser.tells("#announcer", "The count is 99").await.unwrap();
    assert_eq!(browser.recorded().await.unwrap(), ["", "The count is 100", "The count is 99"]);
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn a_count_that_never_rests_is_announced_now_and_then() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    let begun = Instant::now();
    while browser.text("#announcer").await.unwrap().is_empty() {
        site.click("increment").await.unwrap();
        assert!(begun.elapsed() < SOON, "{}", browser.count().await.unwrap());
        sleep(Duration::from_millis(200)).await;
    }
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn a_refusal_that_breaks_off_is_one() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    let break_off =
        "const body = () => new ReadableStream({ pull: (to) => to.error(new TypeError('by the test')) });
        window.fetch = async () => new Response(body(), { status: 409 });";
    browser.run(break_off).await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.tells("#story", "Not counted").await.unwrap();
    browser.settles_at(0).await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn a_count_at_its_end_says_that_the_click_was_not_counted() {
    let site = Site::start_at(i64::MAX).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.tells("#story", "Not counted. The count is at its end").await.unwrap();
    browser.settles_at(i64::MAX).await.unwrap();
    browser.click(DECREMENT).await.unwrap();
    browser.settles_at(i64::MAX - 1).await.unwrap();
    browser.finish_after(&["409 (Conflict)"]).await.unwrap();
}

#[tokio::test]
async fn a_page_that_is_come_back_to_is_live_and_counts() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.settles_at(1).await.unwrap();

    browser.open(&format!("{}/nothing", site.url)).await.unwrap();
    site.click("increment").await.unwrap();
    for count in [3, 4] {
        browser.back().await.unwrap();
        browser.is_live().await.unwrap();
        browser.settles_at(count - 1).await.unwrap();
        browser.click(INCREMENT).await.unwrap();
        browser.settles_at(count).await.unwrap();
        browser.forward().await.unwrap();
        browser.tells("h1", "Not Found").await.unwrap();
    }
    assert_eq!(site.count().await.unwrap(), 4);
    browser.finish_after(&["404 (Not Found)"]).await.unwrap();
}
