//! The status page with script: live, until its visitor or the network stops it.

use anyhow::ensure;
use browser::{
    Browser, Site,
    wait::{SOON, eventually},
};

const TOTAL: &str = "section:has(#clicks) figcaption";

#[tokio::test]
async fn the_status_is_live_until_it_is_paused_and_says_when_it_is_lost() {
    let mut site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&format!("{}/status", site.url)).await.unwrap();
    browser.is_live().await.unwrap();
    browser.record("#stream").await.unwrap();
    site.click("increment").await.unwrap();
    browser.tells(TOTAL, "1 in five minutes").await.unwrap();

    browser.click("#pause").await.unwrap();
    browser.tells("#stream", "Paused").await.unwrap();
    // The second is known to the server, and so were others before it.
    for total in 2..=3 {
        site.click("increment").await.unwrap();
        eventually("the server tells the new total", SOON, async || {
            let ask = "fetch('/status/live').then((answer) => answer.text()).then(done);";
            let fresh = browser.run_async(ask).await?;
            let fresh = fresh.as_str().unwrap_or_default();
            ensure!(fresh.contains(&format!("{total} in five minutes")), "{fresh}");
            Ok(())
        })
        .await
        .unwrap();
    }
    assert!(browser.text(TOTAL).await.unwrap().contains("1 in five minutes"));

    browser.click("#pause").await.unwrap();
    browser.is_live().await.unwrap();
    browser.tells(TOTAL, "3 in five minutes").await.unwrap();
    site.kill().await.unwrap();
    browser.tells("#stream", "Connection lost").await.unwrap();
    let lost = browser.text("#stream").await.unwrap();
    site.restart().await.unwrap();
    browser.is_live().await.unwrap();
    // Each once: all of it is read out to those who do not see it.
    browser.wait_for("document.querySelector('#stream[role=status]')", SOON).await.unwrap();
    assert_eq!(browser.recorded().await.unwrap(), ["Live", "Paused", "Live", &lost, "Live"]);
    assert_eq!(browser.shifts().await.unwrap(), [""; 0]);
    browser.finish_after(&["net::ERR_"]).await.unwrap();
}
