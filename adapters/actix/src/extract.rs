//! What a handler extracts from its request: the transaction and the key.

use std::fmt;
use std::future::{Ready, ready};
use std::ops::{Deref, DerefMut};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError};
use payonce_engine::IdempotencyKey;
use payonce_http::{Lent, NoTransaction, Refusal, Slot};
use sqlx::PgConnection;

use crate::reply::respond;

/// Put into the extensions of a request whose handler is executed.
#[derive(Clone)]
pub(crate) struct Executing {
    pub(crate) slot: Slot,
    pub(crate) key: Option<IdempotencyKey>,
}

/// The engine's transaction, as an extractor. It is a [`PgConnection`]: `sqlx::query(…).execute(&mut *tx)`. What is written through
/// it is committed together with the key and the answer, or not at all. `tx.begin()` makes a savepoint.
///
/// Never send `commit` or `rollback` through it, and do not keep it for longer than the handler runs. What is written through another
/// connection is not part of the transaction.
///
/// ```
/// use actix_web::{HttpResponse, error};
/// use payonce_actix::Tx;
///
/// async fn create_order(mut tx: Tx) -> actix_web::Result<HttpResponse> {
///     let insert = sqlx::query("insert into orders (sku) values ('tea')");
///     insert.execute(&mut *tx).await.map_err(error::ErrorInternalServerError)?;
///     Ok(HttpResponse::Created().finish())
/// }
/// # let _ = actix_web::App::new().route("/orders", actix_web::web::post().to(create_order));
/// ```
pub struct Tx(Lent);

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// The handler cannot have a transaction. It is answered with 500, and the body says what to do.
///
/// ```
/// use actix_web::ResponseError;
/// use payonce_actix::{NoTransaction, TxError};
///
/// let error = TxError(NoTransaction::NoLayer);
/// assert_eq!(error.error_response().status(), 500);
/// assert!(error.to_string().contains("put the idempotency layer around the route"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxError(pub NoTransaction);

impl fmt::Display for TxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for TxError {
    fn status_code(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }

    fn error_response(&self) -> HttpResponse {
        respond(Refusal::NoTransaction(self.0).problem())
    }
}

impl FromRequest for Tx {
    type Error = TxError;
    type Future = Ready<Result<Self, TxError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let extensions = request.extensions();
        let taken = match extensions.get::<Executing>() {
            Some(executing) => executing.slot.take(),
            None => Err(NoTransaction::NoLayer),
        };
        ready(taken.map(Self).map_err(|why| {
            Refusal::NoTransaction(why).log();
            TxError(why)
        }))
    }
}

/// The key of the request, as an extractor. It also works without the middleware. Use `Option<Key>` on a route that accepts requests
/// without a key, and only behind the middleware: without it, actix-web's `Option` would turn an invalid key into `None`.
///
/// ```
/// use actix_web::{App, web};
/// use payonce_actix::Key;
///
/// async fn create_order(Key(key): Key) -> String {
///     format!("under {}", key.as_str())
/// }
/// # let _ = App::new().route("/orders", web::post().to(create_order));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(pub IdempotencyKey);

/// There is no key, or it is not valid. The request is answered with 400.
///
/// ```
/// use actix_web::ResponseError;
/// use payonce_actix::{KeyError, Refusal};
///
/// assert_eq!(KeyError(Refusal::KeyMissing).error_response().status(), 400);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(pub Refusal);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.title())
    }
}

impl ResponseError for KeyError {
    fn status_code(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }

    fn error_response(&self) -> HttpResponse {
        respond(self.0.problem())
    }
}

impl FromRequest for Key {
    type Error = KeyError;
    type Future = Ready<Result<Self, KeyError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // A middleware has read it already. Without one it is still in the headers.
        let read = request
            .extensions()
            .get::<Executing>()
            .map(|it| it.key.clone());
        let key = read.map_or_else(
            || {
                let values = request.headers().get_all("idempotency-key");
                payonce_http::key_of(values.map(HeaderValue::as_bytes))
            },
            Ok,
        );
        let key = key.and_then(|key| key.ok_or(Refusal::KeyMissing));
        ready(key.map(Self).map_err(KeyError))
    }
}
