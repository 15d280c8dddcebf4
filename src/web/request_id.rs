//! Which request a line in the log belongs to.
//!
//! Fly's proxy gives each request an id, and shows it in its own logs; whoever comes past it gets one of ours, made only
//! where something is logged. The id is kept with the task, not in a span of `tracing`: a span would cost each request
//! an entry in a registry and its text, and nearly none of them logs anything.

use std::{cell::OnceCell, fmt};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
    },
};
use uuid::Uuid;

const FLY_REQUEST_ID: HeaderName = HeaderName::from_static("fly-request-id");
/// Fly's have 30 characters.
const LONGEST: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Visible ASCII of at most 64 characters, whoever sent it.
pub(super) enum RequestId {
    Given(HeaderValue),
    Own(OnceCell<Uuid>),
}

impl RequestId {
    pub(super) fn of(request: &HeaderMap) -> Self {
        let is_name = |id: &&HeaderValue| {
            (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        match request.get(&FLY_REQUEST_ID).filter(is_name) {
            Some(id) => Self::Given(id.clone()),
            None => Self::Own(OnceCell::new()),
        }
    }

    /// What is logged meanwhile is this request's.
    pub(super) async fn within<T>(self, request: impl Future<Output = T>) -> T {
        CURRENT.scope(self, request).await
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(id) => f.write_str(id.to_str().unwrap_or_default()),
            Self::Own(id) => id.get_or_init(Uuid::new_v4).fmt(f),
        }
    }
}

/// Writes a log line's fields, and with them which request it belongs to.
#[derive(Debug, Default)]
pub struct LogFields(DefaultFields);

impl<'writer> FormatFields<'writer> for LogFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        CURRENT.try_with(|id| write!(writer, " request={id}")).unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_only_where_it_can_stand_in_a_log_line() {
        let of = |id: &[u8]| {
            let headers = HeaderMap::from_iter([(FLY_REQUEST_ID, HeaderValue::from_bytes(id).unwrap())]);
            RequestId::of(&headers).to_string()
        };
        for good in ["01HZXW5T7Q8Y9ZABCDEFGHJKMN-ams", "x", &"~".repeat(64)] {
            assert_eq!(of(good.as_bytes()), good);
        }
        for bad in [&b""[..], b"a b", b"a\tb", "é".as_bytes(), b"\xff", &[b'x'; 65]] {
            assert!(of(bad).parse::<Uuid>().is_ok(), "{bad:?}");
        }
        let own = RequestId::of(&HeaderMap::new());
        assert_eq!(own.to_string(), own.to_string());
    }
}
