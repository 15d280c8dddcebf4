//! Pictures of every page and state, in both schemes and several sizes, in `target/screenshots`; the README's four; and the
//! one that a preview of the page shows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use browser::{
    Browser, Site,
    browser::Scheme,
    counter::INCREMENT,
    pages::{self, Page},
    wait::SOON,
};
use devcluster::{Cluster, Options};
use serde_json::json;

/// A window: its name, width and height in CSS pixels, and how many of the screen's make one of them.
const WINDOWS: &[(&str, u32, u32, u32)] = &[
    ("360", 360, 740, 2),
    ("1000", 1000, 700, 1),
    ("3840", 3840, 2160, 1),
    // The window of 1000, enlarged by its visitor.
    ("zoom", 500, 350, 2),
];

/// The README's window.
const README: (u32, u32, u32) = (1200, 675, 1);
/// What those who show a preview of a page expect.
const PREVIEW: (u32, u32, u32) = (1200, 630, 1);

/// Where they go, and how many there are.
struct Album {
    folder: PathBuf,
    taken: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the checkout");
    let folder = checkout.join("target/screenshots");
    // Those of states that are gone would be looked at for nothing.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let mut album = Album { folder, taken: 0 };
    numbers(&mut album).await?;
    clicks(&mut album).await?;
    losses(&mut album).await?;
    every_page(&mut album).await?;
    regions(&mut album, checkout).await?;
    println!("{} pictures in {}", album.taken, album.folder.display());
    Ok(())
}

impl Album {
    /// One for each scheme and window.
    async fn add(&mut self, name: &str, browser: &Browser) -> Result<()> {
        for scheme in Scheme::ALL {
            for (window, width, height, scale) in WINDOWS {
                show(browser, scheme, (*width, *height, *scale)).await?;
                let picture = browser.whole_picture().await?;
                fs::write(self.folder.join(format!("{name}-{}-{window}.png", scheme.name())), picture)?;
                self.taken += 1;
            }
        }
        Ok(())
    }
}

async fn take(browser: &Browser, scheme: Scheme, window: (u32, u32, u32)) -> Result<Vec<u8>> {
    show(browser, scheme, window).await?;
    browser.picture().await
}

async fn show(browser: &Browser, scheme: Scheme, window: (u32, u32, u32)) -> Result<()> {
    let (width, height, scale) = window;
    browser.prefer(scheme).await?;
    browser.resize(width, height, scale).await?;
    browser.run("window.scrollTo(0, 0);").await?;
    // Away from the buttons, which would show that it hovers over them.
    browser.cdp("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": 0, "y": 0})).await?;
    Ok(())
}

async fn numbers(album: &mut Album) -> Result<()> {
    for (name, count) in [
        ("four-digits", 1234),
        ("a-million", 1_000_000),
        ("negative", -42),
        ("nineteen-digits", i64::MAX),
        ("the-longest", i64::MIN),
    ] {
        let site = Site::start_at(count).await?;
        let browser = Browser::start().await?.handing_errors_on();
        browser.open(&site.url).await?;
        browser.is_live().await?;
        album.add(name, &browser).await?;
        if count == i64::MAX {
            browser.click(INCREMENT).await?;
            browser.tells("#story", "Not counted").await?;
            album.add("click-refused", &browser).await?;
        }
        browser.finish_after(&["409 (Conflict)"]).await?;
    }
    Ok(())
}

async fn clicks(album: &mut Album) -> Result<()> {
    let site = Site::start_at(1234).await?;
    let browser = Browser::start().await?.handing_errors_on();
    browser.open(&site.url).await?;
    browser.is_live().await?;

    site.pause()?;
    browser.click(INCREMENT).await?;
    browser.wait_for(r##"document.querySelector("#count.unsettled")"##, SOON).await?;
    album.add("click-waiting", &browser).await?;
    site.resume()?;

    browser.settles_at(1235).await?;
    album.add("click-counted", &browser).await?;

    browser.go_offline().await?;
    browser.click(INCREMENT).await?;
    browser.tells("#story", "Not saved yet").await?;
    album.add("connection-lost", &browser).await?;
    browser.finish_after(&["net::ERR_"]).await
}

async fn losses(album: &mut Album) -> Result<()> {
    let mut site = Site::start_at(1234).await?;
    let browser = Browser::start().await?.handing_errors_on();
    browser.open(&format!("{}/status", site.url)).await?;
    browser.is_live().await?;
    browser.click("#pause").await?;
    browser.tells("#stream", "Paused").await?;
    album.add("status-paused", &browser).await?;
    browser.click("#pause").await?;
    browser.is_live().await?;
    site.kill().await?;
    browser.tells("#stream", "Connection lost").await?;
    album.add("status-lost", &browser).await?;

    site.restart_without_answers_of_litefs().await?;
    browser.open(&site.url).await?;
    browser.tells("#stream", "Not up to date").await?;
    browser.tells("#role", "LiteFS does not answer here").await?;
    album.add("litefs-silent", &browser).await?;
    browser.finish_after(&["net::ERR_"]).await
}

async fn every_page(album: &mut Album) -> Result<()> {
    let site = Site::start_full().await?;
    let browser = Browser::start().await?.handing_errors_on();
    for (name, page) in pages::ALL {
        // In more states above.
        if *page != Page::At("/") {
            pages::visit(&browser, &site, *page).await?;
            album.add(&format!("page-{}", name.replace(' ', "-")), &browser).await?;
        }
    }
    browser.finish_after(&["404 (Not Found)", "503 (Service Unavailable)"]).await?;

    let browser = Browser::start_without_script().await?.handing_errors_on();
    browser.open(&site.url).await?;
    album.add("without-script", &browser).await?;
    browser.finish().await
}

async fn for_readme(browser: &Browser, name: &str, checkout: &Path) -> Result<()> {
    for scheme in Scheme::ALL {
        let file = checkout.join(format!("docs/images/{name}-{}.png", scheme.name()));
        let picture = take(browser, scheme, README).await?;
        fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn regions(album: &mut Album, checkout: &Path) -> Result<()> {
    let cluster = Cluster::start(Options { wan: true, ..Options::default() }).await?;
    let update = "update counter set count = 1233";
    let set = cluster.instance("sjc-1")?.run(&["sqlite3", "/litefs/sqlite.db", update]).await?;
    ensure!(set.status.success(), "the count cannot be set: {}", String::from_utf8_lossy(&set.stderr));

    let browser = Browser::start().await?.handing_errors_on();
    browser.open(&cluster.entry("syd")?).await?;
    browser.settles_at(1233).await?;
    browser.is_live().await?;
    browser.click_confirmed().await?;
    album.add("replica", &browser).await?;
    for_readme(&browser, "page", checkout).await?;
    let preview = take(&browser, Scheme::Light, PREVIEW).await?;
    fs::write(checkout.join("static/preview.png"), preview).context("static/preview.png")?;

    let status = format!("{}/status", cluster.entry("syd")?);
    browser.open(&status).await?;
    browser.is_live().await?;
    browser.tells(".headline", "All 4 instances answer").await?;
    for_readme(&browser, "status", checkout).await?;
    album.add("status", &browser).await?;

    // The only one that could confirm.
    cluster.instance("sjc-2")?.kill().await;
    browser.tells(".headline", "sjc-2").await?;
    album.add("status-silent-instance", &browser).await?;
    browser.open(&cluster.entry("syd")?).await?;
    browser.is_live().await?;
    browser.click(INCREMENT).await?;
    browser.tells("#story", "acknowledged alone").await?;
    album.add("acknowledged-alone", &browser).await?;

    // Now both candidates, so that it stays like this.
    cluster.instance("sjc-1")?.kill().await;
    browser.tells("#role", "No primary").await?;
    album.add("no-primary", &browser).await?;
    browser.open(&status).await?;
    browser.is_live().await?;
    browser.tells(".headline", "No instance is primary").await?;
    album.add("status-no-primary", &browser).await?;
    browser.open(&cluster.entry("syd")?).await?;
    browser.tells("#role", "No primary").await?;
    browser.click(INCREMENT).await?;
    browser.tells("#story", "Not saved yet").await?;
    album.add("no-primary-click-waiting", &browser).await?;
    browser.finish_after(&["net::ERR_", "502 (Bad Gateway)", "503 (Service Unavailable)"]).await
}
