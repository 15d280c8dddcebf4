//! Style, script and pictures, from `static/`.
//!
//! A release has them in it, compressed; otherwise they are read at each request, so that an edit shows at once. Pages
//! name them by their content, which a browser may keep for ever.

use std::sync::LazyLock;

use axum::Router;
use memory_serve::{CacheControl, Manifest, MemoryServe};

static PATHS: LazyLock<Manifest> = LazyLock::new(|| assets().manifest());

/// Where a page finds the file of this name.
pub(super) fn url(name: &str) -> &str {
    PATHS.get(name).unwrap_or(name)
}

/// Serves all of them, under their names and by their content.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets().into_router()
}

fn assets() -> MemoryServe {
    // By its name alone a file is asked for by a page of the version before, in a deploy: it may have changed since.
    memory_serve::load!().index_file(None).enable_hashed_routes(true).cache_control(CacheControl::NoCache)
}
