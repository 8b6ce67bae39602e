//! A response body that is sent in pieces, and owns a guard that is dropped when it has been sent.
//!
//! actix-web copies each chunk of a body into the connection's buffer, and asks for the next one while the buffer has less than
//! 32 KiB. A body that is one chunk is copied whole, however large it is, for a peer that may never read it.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;

/// Maximum size of a piece, in bytes.
const PIECE: usize = 16 * 1024;

pin_project! {
    /// A body with a guard. actix-web drops both once the last byte has been handed to the connection.
    pub struct GuardedBody<B, G> {
        #[pin]
        body: B,
        // The part of the current chunk that is not sent yet: a slice of it, not a copy.
        rest: Bytes,
        guard: G,
    }
}

impl<B, G> GuardedBody<B, G> {
    pub(super) fn new(body: B, guard: G) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            guard,
        }
    }
}

impl<B: MessageBody, G> MessageBody for GuardedBody<B, G> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.project();
        if this.rest.is_empty() {
            match this.body.poll_next(context) {
                Poll::Ready(Some(Ok(given))) => *this.rest = given,
                ended_or_pending => return ended_or_pending,
            }
        }
        let piece = this.rest.split_to(PIECE.min(this.rest.len()));
        Poll::Ready(Some(Ok(piece)))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use futures_util::FutureExt;
    use futures_util::future::poll_fn;

    use super::*;

    #[test]
    fn it_gives_pieces_of_the_body_without_a_copy() {
        let whole = Bytes::from(vec![b'x'; 3 * PIECE + 1]);
        let mut body = Box::pin(GuardedBody::new(whole.clone(), ()));
        assert_eq!(body.size(), BodySize::Sized(3 * PIECE as u64 + 1));
        let mut next = || {
            poll_fn(|context| body.as_mut().poll_next(context))
                .now_or_never()
                .flatten()
        };
        let mut at = whole.as_ptr();
        for length in [PIECE, PIECE, PIECE, 1] {
            let piece = next().expect("a piece").expect("no error");
            assert_eq!((piece.len(), piece.as_ptr()), (length, at));
            at = at.wrapping_add(length);
        }
        assert!(next().is_none());
    }

    #[test]
    fn a_body_of_any_length_comes_whole() {
        for length in [0, 1, PIECE, PIECE + 1] {
            let sent = to_bytes(GuardedBody::new(Bytes::from(vec![b'x'; length]), ()));
            let sent = sent.now_or_never().expect("at once").expect("no error");
            assert_eq!(sent.len(), length);
        }
    }
}
