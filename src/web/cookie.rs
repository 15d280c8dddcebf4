//! The cookie `__txid` on answers to writes.
//!
//! LiteFS's proxy sets it to the newest transaction of the primary, which may be another visitor's and not confirmed
//! yet. Where that one is lost with its primary, this visitor's reads would wait for a transaction that never comes, and
//! get `504` for up to five minutes. A browser keeps the last cookie of a name, and the application's comes after the
//! proxy's.

use axum::{
    extract::Request,
    http::{Method, header},
    response::Response,
};

use crate::instance::{Instance, Txid};

/// A request whose answer gets the cookie, from LiteFS's proxy at least: errors as well.
pub(super) struct Write {
    /// What the visitor has seen so far.
    seen: Option<Txid>,
}

impl Write {
    /// `None` for one that only reads, and where no proxy of LiteFS is.
    pub(super) fn of(request: &Request, instance: &Instance) -> Option<Self> {
        // As LiteFS's proxy takes it: everything else is a write.
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_meant = !is_read && instance.is_replicated();
        is_meant.then(|| Self { seen: Txid::from_cookies(request.headers()) })
    }

    /// Where nothing is confirmed yet, a new primary say, the visitor keeps what they had. Where the write was refused they
    /// keep it if it is more: a primary that is none any more would take from them what they have seen at the other one.
    pub(super) fn set_confirmed(self, confirmed: Option<Txid>, response: &mut Response) {
        let status = response.status();
        let is_refused = status.is_client_error() || status.is_server_error();
        let txid = if is_refused { confirmed.max(self.seen) } else { confirmed.or(self.seen) };
        let cookie = txid.map_or_else(Txid::remove_cookie, Txid::set_cookie);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_click_that_is_counted_sets_what_is_confirmed_and_one_that_is_refused_keeps_what_was_seen() {
        let set = |seen: Option<u64>, status, confirmed: Option<u64>| {
            let mut response = Response::default();
            *response.status_mut() = status;
            Write { seen: seen.map(Txid) }.set_confirmed(confirmed.map(Txid), &mut response);
            let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
            let txid = cookie.split(';').next().unwrap().strip_prefix("__txid=").unwrap();
            u64::from_str_radix(txid, 16).ok()
        };
        let (counted, refused) = (StatusCode::SEE_OTHER, StatusCode::SERVICE_UNAVAILABLE);
        for (seen, status, confirmed, txid) in [
            (Some(9), counted, Some(5), Some(5)),
            (Some(9), counted, None, Some(9)),
            (Some(9), refused, Some(5), Some(9)),
            (Some(3), refused, Some(5), Some(5)),
            (None, refused, Some(5), Some(5)),
            (None, refused, None, None),
        ] {
            assert_eq!(set(seen, status, confirmed), txid, "{seen:?} {status} {confirmed:?}");
        }
    }
}
