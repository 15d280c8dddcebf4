//! Somebody with a browser: cookies, and clicks, which carry a key or none.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use devcluster::Cluster;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, COOKIE, SET_COOKIE},
    redirect::Policy,
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::history::{Acknowledgement, Confirmation, Failure};

/// How long a page may take. LiteFS's proxy and the edge give up after 5 s each.
const PAGE: Duration = Duration::from_secs(12);
/// How long a click may take. The application holds one for a while when there is no primary.
const CLICK: Duration = Duration::from_secs(15);

/// A visitor in one region.
pub struct Visitor {
    /// The region in which they enter.
    pub region: &'static str,
    http: Client,
    entry: String,
    /// Name and value of each cookie, as a browser has them.
    cookies: Mutex<BTreeMap<String, String>>,
    since: Instant,
}

/// What is acknowledged, in the words of the application.
#[derive(Deserialize)]
struct Receipt {
    count: i64,
    confirmation: String,
}

impl Visitor {
    /// One who has not been here before. `since` is what all times are counted from.
    pub fn new(cluster: &Cluster, region: &'static str, since: Instant) -> anyhow::Result<Self> {
        let http = Client::builder().no_proxy().redirect(Policy::none()).build()?;
        Ok(Self { region, http, entry: cluster.entry(region)?, cookies: Mutex::default(), since })
    }

    /// Presses the button. The same key is the same click.
    pub async fn click(&self, key: Option<&str>) -> Result<Acknowledgement, Failure> {
        let request = self.http.post(&self.entry).timeout(CLICK);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = request.header(ACCEPT, "application/json");
        let key = key.map(|key| format!("&key={key}")).unwrap_or_default();
        let answer = self.send(request.body(format!("intent=increment{key}"))).await?;
        let is_page = answer.status() == StatusCode::SEE_OTHER;
        if !is_page && answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        let text = answer.text().await.map_err(|error| self.broken(&error))?;
        let at = self.since.elapsed();
        let unsaid = Acknowledgement { at, count: None, confirmation: Confirmation::Unsaid };
        if is_page {
            return Ok(unsaid);
        }
        let receipt: Receipt = serde_json::from_str(&text).map_err(|error| Failure {
            at,
            status: Some(200),
            cause: format!("{error}: {text}"),
        })?;
        let confirmation = match receipt.confirmation.as_str() {
            "candidates" => Confirmation::Candidates,
            "alone" => Confirmation::Alone,
            "off" => Confirmation::Off,
            _ => Confirmation::Unsaid,
        };
        Ok(Acknowledgement { count: Some(receipt.count), confirmation, ..unsaid })
    }

    /// Asks for the page, and reads the count on it.
    pub async fn look(&self) -> Result<i64, Failure> {
        let answer = self.send(self.http.get(&self.entry).timeout(PAGE)).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(answer).await);
        }
        let html = answer.text().await.map_err(|error| self.broken(&error))?;
        count_on(&html).ok_or_else(|| Failure {
            at: self.since.elapsed(),
            status: Some(200),
            cause: format!("no count on the page: {html}"),
        })
    }

    /// Puts another cookie in its place.
    pub fn set_txid(&self, txid: &str) {
        self.cookies().insert("__txid".to_owned(), txid.to_owned());
    }

    /// Sends with the cookies, and keeps those that come.
    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Failure> {
        let cookies =
            self.cookies().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let answer = request.send().await.map_err(|error| self.broken(&error))?;
        let set = answer.headers().get_all(SET_COOKIE).into_iter().filter_map(|set| set.to_str().ok());
        // The last one of a name stays; one without a value is taken away.
        for (name, value) in set.filter_map(|set| set.split(';').next()?.split_once('=')) {
            if value.is_empty() {
                self.cookies().remove(name);
            } else {
                self.cookies().insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(answer)
    }

    fn cookies(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refused(&self, answer: Response) -> Failure {
        let status = Some(answer.status().as_u16());
        let text = answer.text().await.unwrap_or_default();
        // Of a page, its beginning says nothing.
        let cause = text.trim().chars().take(200).collect();
        Failure { at: self.since.elapsed(), status, cause }
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        let cause = if error.is_timeout() { "no answer in time" } else { "the connection broke" };
        Failure { at: self.since.elapsed(), status: None, cause: cause.to_owned() }
    }
}

/// The count in a page's `<output id="count" …>`.
#[must_use]
pub fn count_on(html: &str) -> Option<i64> {
    let (_, rest) = html.split_once(r#"<output id="count""#)?;
    let (_, rest) = rest.split_once('>')?;
    rest.split_once("</output>")?.0.trim().replace('−', "-").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_the_page() {
        assert_eq!(count_on(r#"<p><output id="count" class="digits-3">−17</output>"#), Some(-17));
        assert_eq!(count_on("Proxy timeout"), None);
    }
}
