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

    /// Where nothing is confirmed yet, a new primary say, the visitor keeps what they had.
    pub(super) fn set_confirmed(self, confirmed: Option<Txid>, response: &mut Response) {
        let cookie = confirmed.or(self.seen).map_or_else(Txid::remove_cookie, Txid::set_cookie);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
