//! A chunked body that nobody reads to its end.
//!
//! actix-web would go on receiving it after the response, for as long as the client likes, to use the connection again. It
//! does so for a body that was dropped; one that still lives when the response has been sent makes it close the connection,
//! within a second. So the body lives until then.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage;
use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::TRANSFER_ENCODING;
use actix_web::web::Bytes;
use futures_util::Stream;
use futures_util::stream::poll_fn;

/// A request's body that is lent to a handler.
pub(super) struct LentBody(Option<Rc<RefCell<Payload>>>);

impl LentBody {
    /// Lends a chunked body. One with a length needs no hold.
    pub(super) fn of(request: &mut ServiceRequest) -> Self {
        if !request.headers().contains_key(TRANSFER_ENCODING) {
            return Self(None);
        }
        let body = Rc::new(RefCell::new(request.take_payload()));
        let lent = Rc::clone(&body);
        let stream = poll_fn(move |context| Pin::new(&mut *lent.borrow_mut()).poll_next(context));
        request.set_payload(Payload::Stream {
            payload: Box::pin(stream),
        });
        Self(Some(body))
    }

    /// Keeps it until the response has been sent.
    pub(super) fn keep_with<B>(
        self,
        response: ServiceResponse<B>,
    ) -> ServiceResponse<EitherBody<B, Keeping<B>>> {
        match self.0 {
            None => response.map_into_left_body(),
            Some(request_body) => response.map_body(|_, body| {
                EitherBody::right(Keeping {
                    body: Box::pin(body),
                    _request_body: request_body,
                })
            }),
        }
    }
}

/// A response's body, and the request's, which lives as long.
pub(super) struct Keeping<B> {
    body: Pin<Box<B>>,
    _request_body: Rc<RefCell<Payload>>,
}

impl<B: MessageBody> MessageBody for Keeping<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.get_mut().body.as_mut().poll_next(context)
    }
}
