//! The cookies on answers to writes: how far the visitor's own clicks are.
//!
//! LiteFS's proxy sets `__txid` to the newest transaction of the primary, which may be another visitor's and not confirmed
//! yet. Where that one is lost with its primary, this visitor's reads would wait for a transaction that never comes, and
//! get `504` for up to five minutes. A browser keeps the last cookie of a name, and the application's comes after the
//! proxy's. `position` is the same transaction with its checksum: two histories can share the number.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    response::Response,
};

use super::App;
use crate::instance::{Instance, Position, Role, Route, Txid};

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
        let is_behind = confirmed.is_some_and(|confirmed| Some(confirmed.txid) < self.seen);
        let is_in_doubt = is_refused && is_behind && !holds_lease(&app.instance).await;
        // Read again: the answer may have taken a while.
        self.set(app.counter.confirmed().filter(|_| !is_in_doubt), response.headers_mut());
    }

    fn set(self, confirmed: Option<Position>, headers: &mut HeaderMap) {
        if let Some(confirmed) = confirmed {
            headers.append(header::SET_COOKIE, confirmed.set_cookie());
        }
        let txid = confirmed.map(|confirmed| confirmed.txid).or(self.seen);
        headers.append(header::SET_COOKIE, txid.map_or_else(Txid::remove_cookie, Txid::set_cookie));
    }
}

/// Whether this instance is the primary, by LiteFS's word and by Consul's.
async fn holds_lease(instance: &Instance) -> bool {
    instance.role() == Ok(Role::Primary) && instance.route_to_holder(&HeaderMap::new()).await == Route::Here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cookies_are_what_is_confirmed_and_else_the_visitor_keeps_theirs() {
        let set = |seen: Option<u64>, confirmed: Option<u64>| {
            let mut headers = HeaderMap::new();
            let confirmed = confirmed.map(|txid| Position { txid: Txid(txid), checksum: 1 });
            Write { seen: seen.map(Txid) }.set(confirmed, &mut headers);
            let cookies = headers.get_all(header::SET_COOKIE).iter();
            let cookies =
                cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
            cookies.collect::<Vec<_>>()
        };
        let both = ["position=0000000000000005/0000000000000001", "__txid=0000000000000005"];
        assert_eq!(set(Some(9), Some(5)), both);
        assert_eq!(set(None, Some(5)), both);
        assert_eq!(set(Some(9), None), ["__txid=0000000000000009"]);
        assert_eq!(set(None, None), ["__txid="]);
    }
}
