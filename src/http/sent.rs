//! A response's body that keeps something until it has been sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;

pin_project! {
    /// A body, and what is dropped with it: after its last byte is on its way.
    pub struct UntilSent<B, K> {
        #[pin]
        body: B,
        kept: K,
    }
}

impl<B, K> UntilSent<B, K> {
    pub(super) fn new(body: B, kept: K) -> Self {
        Self { body, kept }
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
        self.project().body.poll_next(context)
    }
}
