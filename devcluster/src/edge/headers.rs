//! What the edge adds to a message and takes from it (<https://fly.io/docs/networking/request-headers/>).

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, CONNECTION, EXPECT, VIA},
};

pub(super) const FLY_REPLAY: HeaderName = HeaderName::from_static("fly-replay");
pub(super) const FLY_REPLAY_SRC: HeaderName = HeaderName::from_static("fly-replay-src");
pub(super) const FLY_REPLAY_FAILED: HeaderName = HeaderName::from_static("fly-replay-failed");
pub(super) const PREFERRED_UNAVAILABLE: HeaderName =
    HeaderName::from_static("fly-preferred-instance-unavailable");

const FLY_CLIENT_IP: HeaderName = HeaderName::from_static("fly-client-ip");
const FLY_REGION: HeaderName = HeaderName::from_static("fly-region");
const FLY_REQUEST_ID: HeaderName = HeaderName::from_static("fly-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that speak of one connection only (RFC 9110, section 7.6.1; the older names are still in use).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Makes the visitor's headers those that an instance gets.
pub(super) fn arrive(headers: &mut HeaderMap, region: &str, visitor: IpAddr, id: &str) {
    remove_hop_by_hop(headers);
    // The edge itself has told the visitor to go on by reading the body.
    headers.remove(EXPECT);
    // Only the edge says these, so an application may believe them.
    for name in [FLY_REPLAY_SRC, FLY_REPLAY_FAILED, PREFERRED_UNAVAILABLE] {
        headers.remove(name);
    }
    headers.insert(FLY_CLIENT_IP, value(&visitor.to_string()));
    headers.insert(FLY_REGION, value(region));
    headers.insert(FLY_REQUEST_ID, value(id));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.append(VIA, HeaderValue::from_static("1.1 fly.io"));

    // One line, because many applications look at the first one only.
    let mut forwarded: Vec<u8> = Vec::new();
    for earlier in headers.get_all(X_FORWARDED_FOR) {
        forwarded.extend_from_slice(earlier.as_bytes());
        forwarded.extend_from_slice(b", ");
    }
    forwarded.extend_from_slice(visitor.to_string().as_bytes());
    if let Ok(forwarded) = HeaderValue::from_bytes(&forwarded) {
        headers.insert(X_FORWARDED_FOR, forwarded);
    }
}

/// Makes an instance's headers, or the edge's own, those that the visitor gets.
pub(super) fn leave(headers: &mut HeaderMap, id: &str) {
    remove_hop_by_hop(headers);
    let replay: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(FLY_REPLAY.as_str())).cloned().collect();
    for name in replay {
        headers.remove(name);
    }
    headers.insert(FLY_REQUEST_ID, value(id));
    headers.append(VIA, HeaderValue::from_static("1.1 fly.io"));
}

/// The time, a count and the region: no two requests have the same one. Fly's have this shape too, as in
/// `01HZ…-ams`.
pub(super) fn request_id(region: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:016X}{count:010X}-{region}", microseconds_since_epoch())
}

/// The present as `fly-replay-src` gives it.
pub(super) fn microseconds_since_epoch() -> u128 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros()
}

/// A header's value out of addresses, ids and regions. The cluster names its machines in plain ASCII; a
/// name that cannot stand in a header is left empty.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
