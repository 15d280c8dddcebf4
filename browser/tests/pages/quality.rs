//! What holds for every page: accessible in both schemes, light, still, and within its policy.

use std::collections::HashMap;

use browser::{
    Browser, Key, Site, axe,
    browser::Scheme,
    counter::INCREMENT,
    pages::{self, Page},
    wait::SOON,
};

/// Bytes over the wire of a first visit. Here nothing is compressed; a release sends less.
const FIRST_VISIT: f64 = 30_000.0;

#[tokio::test]
async fn no_page_breaks_a_rule_of_accessibility_in_either_scheme() {
    let site = Site::start_full().await.unwrap();
    let browser = Browser::start().await.unwrap();
    for (name, page) in pages::ALL {
        for scheme in Scheme::ALL {
            browser.prefer(scheme).await.unwrap();
            pages::visit(&browser, &site, *page).await.unwrap();
            let violations = axe::violations(&browser).await.unwrap();
            assert!(violations.is_empty(), "{name}, {}: {violations:#?}", scheme.name());
        }
    }
    browser.finish_after(&["404 (Not Found)", "503 (Service Unavailable)"]).await.unwrap();
}

#[tokio::test]
async fn a_keyboard_is_enough_and_the_focus_is_seen() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    for (name, key, count) in
        [("Decrement", Key::Enter, -1), ("Increment", Key::Space, 0), ("All instances", Key::Enter, 0)]
    {
        browser.press(Key::Tab).await.unwrap();
        assert_eq!(focused(&browser).await, name);
        browser.press(key).await.unwrap();
        if name != "All instances" {
            browser.settles_at(count).await.unwrap();
            // The next key press is the next click.
            assert_eq!(focused(&browser).await, name);
        }
    }
    browser.wait_for("location.pathname === '/status'", SOON).await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test]
async fn a_keyboard_reaches_all_that_can_be_pressed_on_every_page() {
    let site = Site::start_full().await.unwrap();
    let browser = Browser::start().await.unwrap();
    for (name, page) in pages::ALL {
        pages::visit(&browser, &site, *page).await.unwrap();
        let all = "return Array.from(document.querySelectorAll('a, button'), (it) => it.ariaLabel ?? it.innerText);";
        let all: Vec<String> = serde_json::from_value(browser.run(all).await.unwrap()).unwrap();
        assert!(!all.is_empty(), "{name}");
        for expected in all {
            browser.press(Key::Tab).await.unwrap();
            assert_eq!(focused(&browser).await, expected, "{name}");
            if expected == "Pause" {
                browser.press(Key::Space).await.unwrap();
                browser.tells("#stream", "Paused").await.unwrap();
            }
        }
    }
    // The last of the last page is the way back.
    browser.press(Key::Enter).await.unwrap();
    browser.wait_for("document.querySelector('#count')", SOON).await.unwrap();
    browser.finish_after(&["404 (Not Found)", "503 (Service Unavailable)"]).await.unwrap();
}

/// The name of what has the focus, which has to be seen.
async fn focused(browser: &Browser) -> String {
    let script = "const it = document.activeElement, style = getComputedStyle(it);
        return [it.ariaLabel ?? it.innerText, style.outlineStyle, parseFloat(style.outlineWidth)];";
    let seen = browser.run(script).await.unwrap();
    assert!(seen[1] == "solid" && seen[2].as_f64().unwrap() >= 2.0, "{seen}");
    seen[0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nothing_moves_by_itself() {
    let site = Site::start_at(999).await.unwrap();
    let browser = Browser::start().await.unwrap();
    for (_, page) in pages::ALL.iter().filter(|(_, page)| matches!(page, Page::At(_))) {
        pages::visit(&browser, &site, *page).await.unwrap();
        assert_eq!(browser.shifts().await.unwrap(), [""; 0], "{page:?}");
    }

    // Nor when the number grows by a digit, or the story is told.
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();
    site.click("increment").await.unwrap();
    browser.settles_at(1000).await.unwrap();
    browser.click(INCREMENT).await.unwrap();
    browser.tells("#story", "Your click: written at").await.unwrap();
    assert_eq!(browser.shifts().await.unwrap(), [""; 0]);
    browser.finish_after(&["404 (Not Found)"]).await.unwrap();
}

#[tokio::test]
async fn a_first_visit_is_light_and_asks_nobody_else() {
    let site = Site::start().await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&site.url).await.unwrap();
    browser.is_live().await.unwrap();

    let mut bytes = HashMap::<String, f64>::new();
    let mut asked = Vec::new();
    for event in browser.traffic().await.unwrap() {
        let parameters = &event["params"];
        let id = parameters["requestId"].as_str().unwrap_or_default().to_owned();
        match event["method"].as_str().unwrap() {
            "Network.requestWillBeSent" => {
                asked.push(parameters["request"]["url"].as_str().unwrap().to_owned());
            }
            // So far: the head. The stream does not end.
            "Network.responseReceived" => {
                bytes.insert(id, parameters["response"]["encodedDataLength"].as_f64().unwrap());
            }
            "Network.loadingFinished" => {
                bytes.insert(id, parameters["encodedDataLength"].as_f64().unwrap());
            }
            _ => {}
        }
    }
    // The page, its style, its script, the stream at least.
    assert!(asked.len() >= 4, "{asked:?}");
    assert!(asked.iter().all(|url| url.starts_with(&site.url)), "{asked:?}");
    let sum: f64 = bytes.values().sum();
    assert!((1_000.0..FIRST_VISIT).contains(&sum), "{sum} bytes: {bytes:?}");
    browser.finish().await.unwrap();
}

/// Otherwise no test here would see that the policy is broken, or that script fails.
#[tokio::test]
async fn what_the_policy_forbids_and_what_fails_is_seen() {
    let site = Site::start().await.unwrap();
    for (script, complaint) in [
        (
            "document.body.append(Object.assign(document.createElement('style'), { textContent: 'p{}' }));",
            "style-src",
        ),
        (
            "const image = new Image(); image.src = 'http://127.0.0.2/'; document.body.append(image);",
            "img-src",
        ),
        ("setTimeout(() => { throw new Error('by the test'); });", "by the test"),
        ("console.error('by the test');", "by the test"),
    ] {
        let browser = Browser::start().await.unwrap();
        browser.open(&site.url).await.unwrap();
        browser.run(script).await.unwrap();
        let seen = browser::wait::eventually("a complaint", SOON, async || {
            let seen = browser.complaints().await?;
            anyhow::ensure!(!seen.is_empty(), "nothing");
            Ok(seen)
        });
        assert!(seen.await.unwrap()[0].contains(complaint));
        browser.finish().await.unwrap();
    }
}
