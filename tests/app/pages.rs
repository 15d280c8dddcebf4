use std::collections::HashSet;

use reqwest::{Method, StatusCode, header};
use tokio::task::JoinSet;

use crate::helpers::App;

#[tokio::test]
async fn the_page_shows_the_count_and_a_form_for_each_button() {
    let app = App::start().await;
    let page = app.page().await.text().await.unwrap();

    assert!(page.contains(r#"<output id="count" aria-live="off" class="digits-1">0</output>"#), "{page}");
    let forms: Vec<&str> = page.split("<form").skip(1).collect();
    assert_eq!(forms.len(), 2, "{page}");
    for (form, intent) in forms.iter().zip(["decrement", "increment"]) {
        assert!(form.contains(r#"method="post""#), "{form}");
        assert_eq!(form.matches("<button").count(), 1, "{form}");
        assert!(form.contains(&format!(r#"<button name="intent" value="{intent}""#)), "{form}");
    }
}

#[tokio::test]
async fn below_zero_there_is_a_minus_sign_and_no_hyphen() {
    let app = App::start().await;
    app.count().await;
    app.click("decrement").await;
    let page = app.page().await.text().await.unwrap();
    assert!(page.contains(r#"class="digits-2 negative">−1</output>"#), "{page}");
}

#[tokio::test]
async fn a_preview_of_the_page_has_a_picture_where_the_visitor_has_found_the_page() {
    let app = App::start().await;
    let forwarded = app.client.get(&app.url).header("x-forwarded-proto", "https");
    for (request, scheme) in [(app.client.get(&app.url), "http"), (forwarded, "https")] {
        let page = request.send().await.unwrap().text().await.unwrap();
        let (_, rest) = page.split_once(r#"<meta property="og:image" content=""#).expect("no picture");
        let picture = rest.split_once('"').unwrap().0;
        let path = picture.strip_prefix(&app.url.replace("http", scheme)).expect("another place");
        let answer = app.client.get(format!("{}{path}", app.url)).send().await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "image/png", "{picture}");
    }
}

/// Though it is rendered once for all who ask at the same time.
#[tokio::test]
async fn everybody_gets_keys_of_their_own() {
    let app = App::start().await;
    app.count().await;
    let mut asking = JoinSet::new();
    for _ in 0..64 {
        let page = app.client.get(&app.url);
        asking.spawn(async { page.send().await.unwrap().text().await.unwrap() });
    }
    let pages = asking.join_all().await;
    let mut keys = HashSet::new();
    for page in &pages {
        assert!(!page.contains('\0'), "{page:?}");
        let values = page.split(r#"name="key" value=""#).skip(1);
        keys.extend(values.map(|value| value.split_once('"').unwrap().0));
    }
    assert_eq!(keys.len(), 2 * pages.len(), "{keys:?}");
}

#[tokio::test]
async fn what_is_no_host_is_not_in_the_page() {
    let app = App::start().await;
    for host in ["evil\"><b>", "evil&", "evil'"] {
        let page = app.client.get(&app.url).header(header::HOST, host).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK, "{host}");
        assert!(!page.text().await.unwrap().contains("evil"), "{host}");
    }
}

#[tokio::test]
async fn pages_name_all_their_files_by_content() {
    let app = App::start().await;
    app.count().await;
    for path in ["/", "/status", "/nothing"] {
        let page = app.client.get(format!("{}{path}", app.url)).send().await.unwrap().text().await.unwrap();
        let values = page.split(['"', '#']).filter(|value| value.starts_with('/'));
        let files: Vec<&str> = values.filter(|value| value.contains('.')).collect();
        assert!(files.len() >= 2, "{page}");
        for file in files {
            let hash = file.rsplit('.').nth(1).unwrap();
            assert!(hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{file}");
            let answer = app.client.get(format!("{}{file}", app.url)).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{file}");
            let text = answer.text().await.unwrap();
            assert!(!text.contains("url("), "{file} names another one");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_version_finds_its_files() {
    let app = App::start().await;
    let get = |path| app.client.get(format!("{}{path}", app.url)).send();
    for (asked, here) in
        [("/style.0123456789abcdef.css", "/style.css"), ("/counter.0123456789abcdef.js", "/counter.js")]
    {
        let elsewhere = get(asked).await.unwrap();
        assert_eq!(elsewhere.status(), StatusCode::TEMPORARY_REDIRECT, "{asked}");
        assert_eq!(elsewhere.headers()[header::CACHE_CONTROL], "no-store", "{asked}");
        assert_eq!(elsewhere.headers()[header::LOCATION], here);
        let file = get(here).await.unwrap();
        assert_eq!(file.status(), StatusCode::OK, "{here}");
        assert_eq!(file.headers()[header::CACHE_CONTROL], "no-cache", "{here}");
    }
    for unknown in ["/nothing.0123456789abcdef.css", "/style.0123456789abcdef.js", "/style", "/.css"] {
        assert_eq!(get(unknown).await.unwrap().status(), StatusCode::NOT_FOUND, "{unknown}");
    }
}

#[tokio::test]
async fn the_page_tells_which_instance_served_it_and_who_is_primary() {
    let app = App::start_with(&["--fly-machine-id", "e784079b295268", "--fly-region", "sjc"]).await;
    let page = app.page().await.text().await.unwrap();

    assert!(page.contains(r#"<b id="instance">e784079b295268</b>"#), "{page}");
    assert!(page.contains(r#"<b id="region">sjc</b>"#), "{page}");
    assert!(page.contains("Standalone: this instance writes"), "{page}");
}

#[tokio::test]
async fn reading_writes_nothing() {
    let app = App::start().await;
    app.count().await;
    let bytes = |suffix| {
        let mut file = app.database().into_os_string();
        file.push(suffix);
        std::fs::read(file).unwrap_or_default()
    };
    let before = (bytes(""), bytes("-wal"));

    for path in ["/", "/", "/status", "/healthcheck", "/nothing", "/style.css"] {
        app.client.get(format!("{}{path}", app.url)).send().await.unwrap();
    }

    assert!(!before.0.is_empty());
    assert!(before == (bytes(""), bytes("-wal")), "a read changed the database");
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_protect_it() {
    let app = App::start().await;
    let get = |path| app.client.get(format!("{}{path}", app.url)).send();
    let answers = [
        (200, get("/").await.unwrap()),
        (200, get("/status").await.unwrap()),
        (200, get("/healthcheck").await.unwrap()),
        (200, get("/events").await.unwrap()),
        (404, get("/nothing").await.unwrap()),
        (405, app.client.request(Method::DELETE, &app.url).send().await.unwrap()),
        (303, app.click("increment").await),
        (422, app.click("nothing").await),
    ];

    for (status, answer) in answers {
        assert_eq!(answer.status().as_u16(), status);
        let value = |name| {
            answer.headers().get(name).map_or("", |value: &header::HeaderValue| value.to_str().unwrap())
        };
        let policy = value(header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{status}: {policy}");
        assert_eq!(value(header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{status}");
        assert_eq!(value(header::REFERRER_POLICY), "same-origin", "{status}");
        assert_eq!(value(header::CACHE_CONTROL), "no-store", "{status}");
        // No page of another site reads any of it.
        assert_eq!(value(header::ACCESS_CONTROL_ALLOW_ORIGIN), "", "{status}");
    }
}

#[tokio::test]
async fn the_healthcheck_says_why_it_fails() {
    let app = App::start().await;
    let check = || async {
        let answer = app.client.get(format!("{}/healthcheck", app.url)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    app.count().await;
    assert_eq!(check().await, (StatusCode::OK, "OK\n".to_owned()));

    app.sql("drop table counter").await;

    let (status, reason) = check().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reason.contains("no such table: counter"), "{reason}");
}

#[tokio::test]
async fn the_private_listener_serves_no_pages() {
    let app = App::start_with(&["--private-addr", "127.0.0.1:0"]).await;
    app.count().await;
    let private = app.private_url.as_deref().unwrap();
    let client = &app.client;
    let status = |path| async move { client.get(format!("{private}{path}")).send().await.unwrap().status() };

    assert_eq!(status("/healthcheck").await, StatusCode::OK);
    assert_eq!(status("/").await, StatusCode::NOT_FOUND);
}
