//! What a visitor has seen, and who has it: their page and its stream take nothing back that was shown to them.
//!
//! LiteFS's proxy lets them wait for the number of their last transaction. Two primaries that wrote apart from each other
//! share numbers: so the checksum is compared, and where this node has another history, Consul is asked who holds the lease.

use std::{pin::pin, time::Duration};

use axum::http::HeaderMap;
use tokio::time;

use super::{App, PATIENCE, error::Error};
use crate::instance::{Nowhere, Position, Replay, Role, Route};

/// Between two questions to Consul, for a visitor who waits.
const AGAIN: Duration = Duration::from_millis(500);

/// Who has what the visitor has `seen`. `None`: this instance has it, or will; or nobody does.
pub(super) async fn elsewhere(
    app: &App,
    seen: Position,
    request: &HeaderMap,
) -> Result<Option<Replay>, Error> {
    if app.instance.has_been_at(seen).is_none() && app.instance.role() != Ok(Role::Primary) {
        return Ok(None);
    }
    let (mut role, mut position) = (app.instance.watch(), app.instance.watch_position());
    let mut patience = pin!(time::sleep(PATIENCE));
    loop {
        let is_primary = *role.borrow_and_update() == Ok(Role::Primary);
        let at = [*position.borrow_and_update(), app.counter.confirmed()];
        let is_far_enough = || at.into_iter().flatten().any(|at| at.txid >= seen.txid);
        if app.instance.has_been_at(seen).unwrap_or_else(is_far_enough) {
            return Ok(None);
        }
        let doubt = match app.instance.route_to_holder(request).await {
            Route::Replay(replay) => return Ok(Some(replay)),
            // It was lost with the primary that had it, or is of no instance at all.
            Route::Here if is_primary => return Ok(None),
            Route::Here => Error::Outdated,
            Route::Nowhere(reason @ Nowhere::TooManyHops) => return Err(reason.into()),
            Route::Nowhere(doubt) => doubt.into(),
        };
        tokio::select! {
            Ok(()) = role.changed() => {}
            Ok(()) = position.changed() => {}
            () = time::sleep(AGAIN) => {}
            () = &mut patience => return Err(doubt),
        }
    }
}
