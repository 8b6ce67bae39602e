//! A chunked body that nobody reads to its end.
//!
//! actix-web would go on receiving it after the response, for as long as the client likes, to use the connection again. It
//! does so for a body that was dropped; one that still lives when the response has been sent makes it close the connection,
//! within a second. So the body lives until then.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use actix_web::HttpMessage;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::TRANSFER_ENCODING;
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

    /// What keeps it: whoever holds this when the response has been sent.
    pub(super) fn hold(self) -> Option<Rc<RefCell<Payload>>> {
        self.0
    }
}
