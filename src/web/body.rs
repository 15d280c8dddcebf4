//! The body of a request: read whole, within bounds, before anything answers.
//!
//! An answer that is given while the client still sends is lost: the connection is closed with data unread, the
//! kernel resets it, and LiteFS's proxy says `502` in place of the answer.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
};
use http_body_util::BodyExt as _;
use tokio::time;

use super::error::Error;

/// The largest body of a form, in bytes. A click needs 16.
pub(super) const LARGEST: usize = 4096;
/// How much is taken in of a larger one, in bytes, so that its sender gets to read the refusal. It is what Fly's
/// proxy takes in of a request that may be replayed.
const LARGEST_REFUSED: usize = 1_000_000;
/// How long a body may be on its way.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same request, with a body that is here.
pub(super) async fn read_whole(request: Request) -> Result<Request, Error> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (head, mut body) = request.into_parts();
    let read = time::timeout(PATIENCE, read(&mut body));
    let body = read.await.unwrap_or(Err(Error::Truncated))?;
    Ok(Request::from_parts(head, body.into()))
}

/// What [`read_whole`] has read.
pub(super) async fn bytes(body: Body) -> Result<Bytes, Error> {
    axum::body::to_bytes(body, LARGEST).await.map_err(|_| Error::Truncated)
}

async fn read(body: &mut Body) -> Result<Bytes, Error> {
    let mut taken = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::Truncated)?.into_data() else { continue };
        length += data.len();
        if length > LARGEST_REFUSED {
            break;
        }
        if length <= LARGEST {
            taken.extend_from_slice(&data);
        }
    }
    if length > LARGEST { Err(Error::TooLarge) } else { Ok(taken.into()) }
}
