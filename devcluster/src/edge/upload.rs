//! A request's body. It streams to the first instance, and is kept meanwhile so that another one can have it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

use super::failure::Failure;

/// The largest body, in bytes, that can be replayed. Fly says "1MB"; this is the smaller of its two readings,
/// so that what is replayed here is replayed there.
pub const REPLAY_LIMIT: usize = 1_000_000;

pub(super) struct Upload(Arc<Mutex<State>>);

struct State {
    /// The body as it comes in; none once [`Upload::settle`] has read it to its end.
    incoming: Option<Body>,
    /// What has come in; none once that is over the limit.
    kept: Option<Vec<u8>>,
    /// The attempt that waits for more of the body.
    waiting: Option<Waker>,
}

impl Upload {
    pub fn new(incoming: Body) -> Upload {
        let state = State { incoming: Some(incoming), kept: Some(Vec::new()), waiting: None };
        Upload(Arc::new(Mutex::new(state)))
    }

    /// The body for one more attempt: streamed where no attempt has read any of it, otherwise kept whole.
    pub async fn body(&self) -> Result<Body, Failure> {
        let untouched = {
            let state = lock(&self.0);
            state.incoming.is_some() && state.kept.as_ref().is_some_and(Vec::is_empty)
        };
        if untouched {
            return Ok(Body::new(Stream(self.0.clone())));
        }
        self.settle().await?;
        lock(&self.0).kept.clone().map(Body::from).ok_or(Failure::TooLargeToReplay)
    }

    /// Waits for the rest of the body, which an instance may have answered without reading. An attempt that
    /// still streams it breaks off.
    pub async fn settle(&self) -> Result<(), Failure> {
        let incoming = lock(&self.0).take();
        if let Some(mut incoming) = incoming {
            // Over the limit it is read on all the same: a visitor who still sends would not see the answer.
            while let Some(frame) = incoming.frame().await {
                if let Ok(data) = frame.map_err(Failure::BodyBrokeOff)?.into_data() {
                    lock(&self.0).keep(&data);
                }
            }
        }
        match lock(&self.0).kept {
            Some(_) => Ok(()),
            None => Err(Failure::TooLargeToReplay),
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Body> {
        // Nothing else would tell the attempt that waits, and its connection would stay open for ever.
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        self.incoming.take()
    }

    fn keep(&mut self, data: &[u8]) {
        if let Some(kept) = &mut self.kept {
            if kept.len() + data.len() <= REPLAY_LIMIT {
                kept.extend_from_slice(data);
            } else {
                self.kept = None;
            }
        }
    }
}

/// What an attempt sends while the body comes in.
struct Stream(Arc<Mutex<State>>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut state = lock(&self.0);
        let Some(incoming) = &mut state.incoming else {
            let replayed = io::Error::other("the request was replayed meanwhile");
            return Poll::Ready(Some(Err(axum::Error::new(replayed))));
        };
        let frame = Pin::new(incoming).poll_frame(context);
        match &frame {
            Poll::Pending => state.waiting = Some(context.waker().clone()),
            Poll::Ready(Some(Ok(frame))) => state.keep(frame.data_ref().map_or(&[], Bytes::as_ref)),
            Poll::Ready(_) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).incoming.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

/// Nothing panics while it holds this lock, and what it guards would still be whole.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
