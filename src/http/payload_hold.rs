//! Keeps a chunked request body alive until the response has been sent.
//!
//! If a handler does not read a chunked body to its end and the body is dropped, actix-web continues to receive it after the
//! response, for as long as the client sends, to reuse the connection. If the body is still alive when the response has been sent,
//! actix-web closes the connection within a second.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use actix_web::HttpMessage;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::TRANSFER_ENCODING;
use futures_util::Stream;
use futures_util::stream::poll_fn;

/// A request body that a handler reads without owning it.
pub(super) struct LentPayload(Option<Rc<RefCell<Payload>>>);

impl LentPayload {
    /// Replaces a chunked body by a stream that reads it. A body with a length needs no hold.
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

    /// Returns the body, to be kept until the response has been sent; `None` if it needs no hold.
    pub(super) fn hold(self) -> Option<Rc<RefCell<Payload>>> {
        self.0
    }
}
