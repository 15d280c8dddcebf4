//! The cookie `__txid` on answers to writes.
//!
//! LiteFS's proxy sets it to the newest transaction of the primary, which may be another visitor's and not confirmed
//! yet. Where that one is lost with its primary, this visitor's reads would wait for a transaction that never comes, and
//! get `504` for up to five minutes. A browser keeps the last cookie of a name, and the application's comes after the
//! proxy's.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{Method, header},
    middleware::Next,
    response::Response,
};

use super::App;
use crate::instance::Txid;

/// A layer around everything: the proxy sets its cookie on errors as well.
pub(super) async fn set_confirmed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // As LiteFS's proxy takes it: everything else is a write.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let known = Txid::from_cookies(request.headers());
    let mut response = next.run(request).await;
    if !is_read && app.instance.is_replicated() {
        // Where nothing is confirmed yet, a new primary say, the visitor keeps what they had.
        let seen = app.counter.confirmed().or(known);
        let cookie = seen.map_or_else(Txid::remove_cookie, Txid::set_cookie);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
