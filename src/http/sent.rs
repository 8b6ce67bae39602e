//! A response's body that is sent piece by piece, and keeps something until it has been sent.
//!
//! actix-web copies what a body gives into the connection's buffer, and asks for more while that has less than 32 KiB. A body that
//! gives all of itself at once is copied whole, however large it is, for a peer that may never read it.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;

/// The largest piece, in bytes.
const PIECE: usize = 16 * 1024;

pin_project! {
    /// A body, and what is dropped with it: after its last byte is on its way.
    pub struct UntilSent<B, K> {
        #[pin]
        body: B,
        // What the body gave and was not sent yet: a part of it, and no copy.
        rest: Bytes,
        kept: K,
    }
}

impl<B, K> UntilSent<B, K> {
    pub(super) fn new(body: B, kept: K) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            kept,
        }
    }
}

impl<B: MessageBody, K> MessageBody for UntilSent<B, K> {
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
        let mut body = Box::pin(UntilSent::new(whole.clone(), ()));
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
            let sent = to_bytes(UntilSent::new(Bytes::from(vec![b'x'; length]), ()));
            let sent = sent.now_or_never().expect("at once").expect("no error");
            assert_eq!(sent.len(), length);
        }
    }
}
