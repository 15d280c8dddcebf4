//! Style, script and pictures, from `static/`.
//!
//! A release has them in it, compressed; otherwise they are read at each request, so that an edit shows at once. Pages
//! name them by their content, which a browser may keep for ever.

use std::sync::LazyLock;

use axum::{Router, http::Uri, response::Redirect};
use memory_serve::{CacheControl, Manifest, MemoryServe};

use super::error::Error;

static PATHS: LazyLock<Manifest> = LazyLock::new(|| assets().manifest());

/// Where a page finds the file of this name.
pub(super) fn url(name: &str) -> &str {
    PATHS.get(name).unwrap_or(name)
}

/// Serves all of them, under their names and by their content.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets().into_router()
}

/// Instead of any other path. In a deploy a page of one version asks an instance of another one for its files, which have
/// other names here: they are found under their plain ones.
pub(super) async fn of_another_version(uri: Uri) -> Result<Redirect, Error> {
    let name = without_hash(uri.path()).filter(|name| PATHS.get(name).is_some());
    name.map(|name| Redirect::temporary(&name)).ok_or(Error::NotFound)
}

/// `/style.css` of `/style.0123456789abcdef.css`.
fn without_hash(path: &str) -> Option<String> {
    let (name, kind) = path.rsplit_once('.')?;
    let (name, _hash) = name.rsplit_once('.')?;
    Some(format!("{name}.{kind}"))
}

fn assets() -> MemoryServe {
    // What a plain name stands for may change with each version.
    memory_serve::load!().index_file(None).enable_hashed_routes(true).cache_control(CacheControl::NoCache)
}
