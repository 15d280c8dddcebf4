use reqwest::{Client, Response, StatusCode, header};
use tokio::task::JoinSet;

use crate::helpers::App;

#[tokio::test]
async fn a_click_is_counted_and_leads_back_to_the_page() {
    let app = App::start().await;

    let answer = app.click("increment").await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(answer.headers()[header::LOCATION], "/");
    assert_eq!(app.count().await, 1);

    app.click("decrement").await;
    app.click("decrement").await;
    assert_eq!(app.count().await, -1);
}

#[tokio::test]
async fn the_page_after_a_click_tells_once_what_has_become_of_it() {
    let app = App::start().await;
    let set = |answer: &Response| {
        let cookies = answer.headers().get_all(header::SET_COOKIE).iter();
        cookies.map(|cookie| cookie.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    let [cookie] = &set(&app.click("increment").await)[..] else { panic!("one cookie") };
    let (pair, attributes) = cookie.split_once(';').unwrap();
    assert_eq!(attributes, " Path=/; Max-Age=10; HttpOnly; SameSite=Lax");
    let page = app.client.get(&app.url).header(header::COOKIE, pair).send().await.unwrap();
    assert_eq!(set(&page), ["click=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]);
    let text = page.text().await.unwrap();
    assert!(text.contains(r#"<p id="story">Your click: written at "#), "{text}");

    // Others have nothing to be told, and nothing to forget.
    let page = app.page().await;
    assert_eq!(set(&page), [""; 0]);
    assert!(page.text().await.unwrap().contains(r#"<p id="story"></p>"#));
    // Nor has script, which gets the same as JSON.
    let click = app.client.post(&app.url).body("intent=increment").header(header::ACCEPT, "application/json");
    let click = click.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await.unwrap();
    assert_eq!(click.status(), StatusCode::OK);
    assert_eq!(set(&click), [""; 0]);
}

#[tokio::test]
async fn a_form_may_hold_other_fields_and_a_charset() {
    let app = App::start().await;
    let post = app.client.post(&app.url).body("note=100%25+sure&intent=increment");
    let answer = post.header("content-type", "Application/X-WWW-Form-Urlencoded; charset=UTF-8").send().await;

    assert_eq!(answer.unwrap().status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn the_count_outlives_the_process() {
    let app = App::start().await;
    app.click("increment").await;
    let folder = app.stop().await;

    let app = App::start_in(folder, &[]).await;
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn the_count_stays_in_64_bits() {
    let app = App::start().await;
    app.sql("update counter set count = 9223372036854775807").await;

    let answer = app.click("increment").await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert!(answer.text().await.unwrap().contains("9223372036854775807"));
    assert_eq!(app.count().await, i64::MAX);

    assert_eq!(app.click("decrement").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, i64::MAX - 1);

    app.sql("update counter set count = -9223372036854775808").await;
    assert_eq!(app.click("decrement").await.status(), StatusCode::CONFLICT);
    assert_eq!(app.count().await, i64::MIN);
}

#[tokio::test]
async fn a_click_that_cannot_be_counted_fails_alone() {
    let app = App::start().await;
    app.sql("update counter set count = 9223372036854775806").await;

    let mut clicks = JoinSet::new();
    for _ in 0..50 {
        let (client, url) = (app.client.clone(), app.url.clone());
        clicks.spawn(async move { click(&client, &url, "increment").await });
    }
    let answers = clicks.join_all().await;

    let counted = answers.iter().filter(|status| **status == StatusCode::SEE_OTHER).count();
    assert_eq!(counted, 1, "{answers:?}");
    assert!(answers.iter().all(|status| *status == StatusCode::SEE_OTHER || *status == StatusCode::CONFLICT));
    assert_eq!(app.count().await, i64::MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_thousand_clicks_of_32_visitors_are_eight_thousand() {
    let app = App::start().await;
    let mut visitors = JoinSet::new();
    for _ in 0..32 {
        let (client, url) = (app.client.clone(), app.url.clone());
        visitors.spawn(async move {
            for _ in 0..250 {
                assert_eq!(click(&client, &url, "increment").await, StatusCode::SEE_OTHER);
            }
        });
    }
    visitors.join_all().await;

    assert_eq!(app.count().await, 8000);
}

#[tokio::test]
async fn a_click_whose_visitor_left_is_counted_all_the_same() {
    let app = App::start().await;
    app.count().await;
    // A transaction of somebody else holds the writer up until the visitor is gone.
    let url = format!("sqlite://{}", app.database().display());
    let mut shell = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::query("begin immediate").execute(&mut shell).await.unwrap();
    let impatient = app.client.post(&app.url).header("content-type", "application/x-www-form-urlencoded");
    let impatient = impatient.body("intent=increment").timeout(std::time::Duration::from_millis(300));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    sqlx::query("rollback").execute(&mut shell).await.unwrap();

    app.click("increment").await;
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn after_a_transaction_that_failed_clicks_are_counted_again() {
    let app = App::start().await;
    // SQLite rolls back by itself, as it does on a full disk.
    app.sql("create trigger full before update on counter begin select raise(rollback, 'disk full'); end")
        .await;
    let answer = app.click("increment").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    assert!(answer.text().await.unwrap().contains("could not be written"));

    app.sql("drop trigger full").await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn an_older_version_goes_on_with_a_newer_schema() {
    let app = App::start().await;
    app.sql(
        "insert into _sqlx_migrations values (99990101, 'of the next version', '2099-01-01', true, x'00', 0)",
    )
    .await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
    let folder = app.stop().await;

    let app = App::start_in(folder, &[]).await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 2);
}

async fn click(client: &Client, url: &str, intent: &str) -> StatusCode {
    let post = client.post(url).header("content-type", "application/x-www-form-urlencoded");
    post.body(format!("intent={intent}")).send().await.unwrap().status()
}
