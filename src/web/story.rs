//! What has become of a click, for a browser without script: a cookie brings it from the answer to the form to the page
//! after that, which tells it once. Script has it as JSON, and tells it in the same words.

use std::{fmt, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};

use super::click;
use crate::{
    counter::Counted,
    instance::{Instance, InstanceId, Region},
};

/// The value of a `Set-Cookie` header that makes the browser forget it.
pub(super) const FORGET: HeaderValue =
    HeaderValue::from_static("click=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");

/// Where a click was written, and who has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Story {
    instance: InstanceId,
    region: Region,
    milliseconds: u64,
    confirmed: Confirmed,
}

#[derive(Debug, PartialEq, Eq)]
enum Confirmed {
    /// Nobody was asked.
    Not,
    Alone,
    By(Vec<InstanceId>),
}

/// The value of a `Set-Cookie` header that tells the next page. One that is opened later has nothing to tell.
pub(super) fn set_cookie(counted: &Counted, written_at: &Instance, took: Duration) -> HeaderValue {
    let (confirmation, by) = click::confirmation(counted);
    let (instance, region, milliseconds) = (written_at.id(), written_at.region(), took.as_millis());
    let by = by.join(":");
    let value = format!(
        "click={instance}:{region}:{milliseconds}:{confirmation}:{by}; Path=/; Max-Age=10; HttpOnly; SameSite=Lax"
    );
    HeaderValue::try_from(value).expect("names, digits and fixed text are visible ASCII")
}

impl Story {
    /// From the request's cookies. What is none counts as none: a visitor can send anything.
    pub(super) fn from_cookies(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';'));
        let mut parts = pairs.find_map(|pair| pair.trim().strip_prefix("click="))?.split(':');
        Some(Self {
            instance: parts.next()?.parse().ok()?,
            region: parts.next()?.parse().ok()?,
            milliseconds: parts.next()?.parse().ok()?,
            confirmed: match parts.next()? {
                "standalone" | "off" => Confirmed::Not,
                "alone" => Confirmed::Alone,
                "candidates" => Confirmed::By(parts.map(str::parse).collect::<Result<_, _>>().ok()?),
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, region, milliseconds, confirmed } = self;
        write!(f, "Your click: written at {instance} in {region}, ")?;
        match confirmed {
            Confirmed::Not => f.write_str("committed")?,
            Confirmed::Alone => f.write_str("acknowledged alone")?,
            Confirmed::By(ids) => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(f, "confirmed by {}", ids.join(" and "))?;
            }
        }
        write!(f, ", after {milliseconds} ms.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_has_the_click_and_what_is_not_from_here_says_nothing() {
        let told = |cookie: &str| {
            let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
            Story::from_cookies(&headers).map(|story| story.to_string())
        };
        for (value, text) in [
            ("candidates:sjc-2:sjc-3", "confirmed by sjc-2 and sjc-3"),
            ("candidates:sjc-2", "confirmed by sjc-2"),
            ("alone:", "acknowledged alone"),
            ("off:", "committed"),
            ("standalone:", "committed"),
        ] {
            let text = format!("Your click: written at sjc-1 in sjc, {text}, after 12 ms.");
            assert_eq!(told(&format!("__txid=01; click=sjc-1:sjc:12:{value}")), Some(text));
        }
        for nonsense in [
            "click=",
            "click=sjc-1:sjc:12",
            "click=sjc-1:sjc:soon:alone:",
            "click=<b>:sjc:12:alone:",
            "click=sjc-1:s c:12:alone:",
            "click=sjc-1:sjc:12:nobody:",
            "click=sjc-1:sjc:12:candidates:",
            "click=sjc-1:sjc:12:candidates:sjc-2:no such name",
            "clicks=sjc-1:sjc:12:alone:",
        ] {
            assert_eq!(told(nonsense), None, "{nonsense}");
        }
    }
}
