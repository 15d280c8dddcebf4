use std::time::Duration;

use devcluster::{Cluster, Options};
use reqwest::{Client, StatusCode, redirect::Policy};
use tokio::task::JoinSet;

use crate::support::{SOON, Visitor, everywhere, page_of, primary, start, times};

const REGIONS: [&str; 3] = ["sjc", "ams", "syd"];

#[tokio::test(flavor = "multi_thread")]
async fn clicks_from_every_region_are_counted_on_the_primary_and_seen_everywhere() {
    let cluster = start().await;
    let clicks = times(40, 400);
    let mut visitors = JoinSet::new();
    for visitor in 0..9 {
        let mut visitor = Visitor::in_region(&cluster, REGIONS[visitor % REGIONS.len()]);
        visitors.spawn(async move {
            for _ in 0..clicks {
                assert!(visitor.click("increment").await);
            }
            assert!(visitor.click("decrement").await);
        });
    }
    visitors.join_all().await;

    everywhere(&cluster, i64::try_from(9 * (clicks - 1)).unwrap()).await;
    for region in REGIONS {
        let page = Visitor::in_region(&cluster, region).look().await;
        assert!(page.instance.starts_with(region), "{region} is served by {}", page.instance);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_a_replica_is_replayed_to_the_primary_by_the_proxy_and_by_the_application() {
    let cluster = start().await;
    let primary = primary(&cluster).await;
    let replica = cluster.instance("ams-1").unwrap();
    let client = Client::builder().redirect(Policy::none()).timeout(SOON).build().unwrap();
    let form = ("content-type", "application/x-www-form-urlencoded");

    let by_proxy =
        client.post(replica.url(8080)).header(form.0, form.1).body("intent=increment").send().await.unwrap();
    assert_eq!(by_proxy.headers()["fly-replay"], format!("instance={}", primary.id()));

    // Past the proxy, as no visitor can: the application listens on the machine's loopback only.
    let request = "POST / HTTP/1.0\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                   Content-Length: 16\r\n\r\nintent=increment";
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/8081; printf '%s' '{request}' >&3; cat <&3");
    let by_application = replica.run(&["bash", "-c", &script]).await.unwrap();
    let answer = String::from_utf8(by_application.stdout).unwrap();
    assert!(answer.contains(&format!("fly-replay: instance={};state=1", primary.id())), "{answer}");

    everywhere(&cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_on_a_slow_replica_sees_their_own_click_at_once() {
    let cluster = start().await;
    let primary = primary(&cluster).await;
    let replica = cluster.instance("syd-1").unwrap();
    let delay = Duration::from_millis(200);
    cluster.network().delay(primary.address(), replica.address(), delay);
    cluster.network().delay(replica.address(), primary.address(), delay);

    let mut visitor = Visitor::in_region(&cluster, "syd");
    let mut forgetful = Visitor::in_region(&cluster, "syd");
    let mut old = 0;
    for click in 1..=i64::try_from(times(10, 100)).unwrap() {
        assert!(visitor.click("increment").await);
        // The same click, looked at without the cookie: so this test can fail.
        let without = forgetful.look().await;
        assert_eq!(without.instance, "syd-1");
        if without.count < click {
            old += 1;
        }
        let page = visitor.look().await;
        assert_eq!((page.instance.as_str(), page.count), ("syd-1", click));
    }
    assert!(old > 0, "the replica was never behind: the delay shows nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clicks_from_each_region_are_seen_by_their_visitors_over_real_distances() {
    let cluster = Cluster::start(Options { wan: true, ..Options::default() }).await.unwrap();
    let mut visitors = JoinSet::new();
    for region in REGIONS {
        let mut visitor = Visitor::in_region(&cluster, region);
        visitors.spawn(async move {
            for own in 1..=100 {
                let before = visitor.look().await.count;
                assert!(visitor.click("increment").await);
                let page = visitor.look().await;
                assert!(page.instance.starts_with(region), "{region} is served by {}", page.instance);
                assert!(page.count > before && page.count >= own, "{region}: {before}, then {}", page.count);
            }
        });
    }
    visitors.join_all().await;
    everywhere(&cluster, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_refused_in_every_region() {
    let cluster = start().await;
    for region in REGIONS {
        let mut visitor = Visitor::in_region(&cluster, region);
        for (body, status) in [
            (b"intent=reset".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
            (b"intent=increment%".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
            (vec![b'a'; 5_000], StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            assert_eq!(visitor.post(body).await.status(), status, "{region}");
        }
    }
    everywhere(&cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_tells_which_one_is_primary() {
    let cluster = start().await;
    let primary = primary(&cluster).await;
    for instance in cluster.instances() {
        let page = page_of(instance).await.unwrap();
        let expected = if instance.id() == primary.id() {
            "This instance is <b>primary</b>".to_owned()
        } else {
            format!(r#"The primary is <b id="primary">{}</b>"#, primary.id())
        };
        assert!(page.contains(&expected), "{}: {page}", instance.id());
    }
}
