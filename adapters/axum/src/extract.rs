//! What a handler extracts from its request: the transaction and the key.

use std::ops::{Deref, DerefMut};

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
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
/// use axum::http::StatusCode;
/// use payonce_axum::Tx;
///
/// async fn create_order(mut tx: Tx) -> Result<StatusCode, StatusCode> {
///     let insert = sqlx::query("insert into orders (sku) values ('tea')");
///     insert.execute(&mut *tx).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
///     Ok(StatusCode::CREATED)
/// }
/// # let _: axum::Router = axum::Router::new().route("/orders", axum::routing::post(create_order));
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
/// use axum::response::IntoResponse;
/// use payonce_axum::{NoTransaction, TxRejection};
///
/// assert_eq!(TxRejection(NoTransaction::NoLayer).into_response().status(), 500);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRejection(pub NoTransaction);

impl IntoResponse for TxRejection {
    fn into_response(self) -> Response {
        respond(Refusal::NoTransaction(self.0).problem())
    }
}

impl<S: Sync> FromRequestParts<S> for Tx {
    type Rejection = TxRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TxRejection> {
        let taken = match parts.extensions.get::<Executing>() {
            Some(executing) => executing.slot.take(),
            None => Err(NoTransaction::NoLayer),
        };
        taken.map(Self).map_err(|why| {
            Refusal::NoTransaction(why).log();
            TxRejection(why)
        })
    }
}

/// The key of the request, as an extractor. It also works without the layer. Use `Option<Key>` on a route that accepts requests without
/// a key.
///
/// ```
/// use payonce_axum::Key;
///
/// async fn create_order(Key(key): Key) -> String {
///     format!("under {}", key.as_str())
/// }
/// # let _: axum::Router = axum::Router::new().route("/orders", axum::routing::post(create_order));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(pub IdempotencyKey);

/// There is no key, or it is not valid. The request is answered with 400.
///
/// ```
/// use axum::response::IntoResponse;
/// use payonce_axum::{KeyRejection, Refusal};
///
/// assert_eq!(KeyRejection(Refusal::KeyMissing).into_response().status(), 400);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRejection(pub Refusal);

impl IntoResponse for KeyRejection {
    fn into_response(self) -> Response {
        respond(self.0.problem())
    }
}

/// A layer has read it already. Without one it is still in the headers.
fn key_of(parts: &Parts) -> Result<Option<IdempotencyKey>, KeyRejection> {
    if let Some(executing) = parts.extensions.get::<Executing>() {
        return Ok(executing.key.clone());
    }
    let values = parts.headers.get_all("idempotency-key").iter();
    payonce_http::key_of(values.map(HeaderValue::as_bytes)).map_err(KeyRejection)
}

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = KeyRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, KeyRejection> {
        let key = key_of(parts)?.ok_or(KeyRejection(Refusal::KeyMissing))?;
        Ok(Self(key))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Key {
    type Rejection = KeyRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, KeyRejection> {
        Ok(key_of(parts)?.map(Self))
    }
}
