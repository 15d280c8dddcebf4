//! The cookie `__txid` on answers to writes.
//!
//! LiteFS's proxy sets it to the newest transaction of the primary, which may be another visitor's and not confirmed
//! yet. Where that one is lost with its primary, this visitor's reads would wait for a transaction that never comes, and
//! get `504` for up to five minutes. A browser keeps the last cookie of a name, and the application's comes after the
//! proxy's.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    response::Response,
};

use super::App;
use crate::instance::{Instance, Route, Txid};

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

    /// To what is confirmed. Where that is nothing yet, on a new primary say, the visitor keeps what they had. So do they where
    /// the click was refused, they have seen more, and Consul does not bear out that this is the primary: one that was cut
    /// off, and is none any more, would take from them what they have seen at the other one.
    pub(super) async fn set_confirmed(self, app: &App, response: &mut Response) {
        let status = response.status();
        let is_refused = status.is_client_error() || status.is_server_error();
        let confirmed = app.counter.confirmed();
        let is_behind = confirmed.is_some() && confirmed < self.seen;
        let is_primary = async || app.instance.route_to_holder(&HeaderMap::new()).await == Route::Here;
        let is_in_doubt = is_refused && is_behind && !is_primary().await;
        // Read again: the answer may have taken a while.
        let cookie = self.txid(app.counter.confirmed(), is_in_doubt);
        let cookie = cookie.map_or_else(Txid::remove_cookie, Txid::set_cookie);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }

    fn txid(&self, confirmed: Option<Txid>, is_in_doubt: bool) -> Option<Txid> {
        if is_in_doubt { confirmed.max(self.seen) } else { confirmed.or(self.seen) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_kept_where_nothing_is_confirmed_or_the_primary_may_be_another_one() {
        for (seen, confirmed, is_in_doubt, txid) in [
            (Some(9), Some(5), false, Some(5)),
            (Some(9), Some(5), true, Some(9)),
            (Some(3), Some(5), true, Some(5)),
            (Some(9), None, false, Some(9)),
            (None, Some(5), true, Some(5)),
            (None, None, false, None),
        ] {
            let write = Write { seen: seen.map(Txid) };
            let set = write.txid(confirmed.map(Txid), is_in_doubt);
            assert_eq!(set, txid.map(Txid), "{seen:?} {confirmed:?} {is_in_doubt}");
        }
    }
}
