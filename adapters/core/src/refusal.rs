//! Why a request gets no answer of its handler's, as RFC 9457 problem details.

use std::time::Duration;

use bytes::Bytes;
use payonce_engine::database::has_sqlstate;
use payonce_engine::{IdempotencyError, is_transient};
use serde_json::{Map, Value, json};

use crate::reply::Reply;
use crate::slot::NoTransaction;

/// The message for an idempotency layer that is around another one. An adapter that notices this when the service starts panics with
/// it.
///
/// ```
/// assert!(payonce_http::nested("create_order").contains("put one layer around each route"));
/// ```
pub fn nested(operation: &str) -> String {
    format!(
        "the idempotency layer of `{operation}` is around another one: the inner one would commit what the outer one could not undo, \
         so put one layer around each route"
    )
}

/// SQLSTATE of a statement after one that failed.
const IN_FAILED_TRANSACTION: &str = "25P02";

/// When to repeat a request that failed because of the database.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request was refused. Statuses 400, 409 and 422 are those of draft-ietf-httpapi-idempotency-key-header-07, 2.7.
///
/// Where [`Refusal::status`] is 500 or above, and for those of a body, nothing is stored and the key is still good. The exception is
/// [`Refusal::OutcomeUnknown`]: the commit may have happened, and the same request finds its outcome.
///
/// ```
/// use payonce_http::Refusal;
///
/// let refusal = Refusal::Mismatch { changed: vec!["body.quantity".to_owned()] };
/// assert_eq!((refusal.status(), refusal.code()), (422, "idempotency-key-reused"));
/// let problem = refusal.problem();
/// assert_eq!(problem.headers[0].1, "application/problem+json");
/// let body: serde_json::Value = serde_json::from_slice(&problem.body)?;
/// assert_eq!(body["changed"][0], "body.quantity");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// 400: there is no `Idempotency-Key` header, and the route requires one.
    KeyMissing,
    /// 400: the header was sent twice, or is not a valid key.
    KeyInvalid(String),
    /// 401: the route's function of the request found no owner.
    OwnerUnknown,
    /// 409: the first request with the key is still in progress.
    InProgress {
        /// When to send the request again.
        retry_after: Duration,
    },
    /// 422: the key was used with another request.
    Mismatch {
        /// The parts that differ, e.g. `body.quantity`; never values.
        changed: Vec<String>,
    },
    /// 409: the key has expired, and what it made is known.
    Expired,
    /// 413: the body is larger than [`Route::max_body`](crate::Route::max_body).
    BodyTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// 408: the body did not arrive in time.
    BodyTooSlow,
    /// 400: the body ended early.
    BodyBroken,
    /// 500: the handler answered more than [`Route::max_answer`](crate::Route::max_answer), or streamed without end.
    AnswerTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// 500: the body of the handler's answer ended early.
    AnswerBroken,
    /// 500: the handler's answer has a status or a header that could not be sent again unchanged.
    AnswerNotStorable(String),
    /// 503: the handler, its answer included, took longer than [`Route::timeout`](crate::Route::timeout).
    HandlerTooSlow {
        /// How long it had.
        limit: Duration,
    },
    /// 500: the handler panicked, or gave its transaction to something that outlives it.
    HandlerAborted,
    /// 500: a query in the handler's transaction failed, and the handler ignored the error.
    TransactionFailed,
    /// 500: the handler asks for a transaction that it cannot have.
    NoTransaction(NoTransaction),
    /// 500: one idempotency layer is inside another.
    Nested,
    /// 503: the database cannot be reached, or is overloaded.
    Unavailable,
    /// 503: the connection to the database was lost during the commit, which may have happened. The same request finds the outcome.
    OutcomeUnknown,
    /// 500: the same for a request without a key, whose outcome nobody finds. A repeat may do it twice.
    OutcomeUnknownWithoutKey,
    /// 500: everything else. The cause is in the log.
    Internal,
}

impl Refusal {
    /// The HTTP status.
    ///
    /// ```
    /// use payonce_http::Refusal;
    ///
    /// assert_eq!(Refusal::KeyMissing.status(), 400);
    /// // Nothing is stored, and the same key may be sent again.
    /// assert_eq!(Refusal::Unavailable.status(), 503);
    /// ```
    pub fn status(&self) -> u16 {
        match self {
            Self::KeyMissing | Self::KeyInvalid(_) | Self::BodyBroken => 400,
            Self::OwnerUnknown => 401,
            Self::BodyTooSlow => 408,
            Self::InProgress { .. } | Self::Expired => 409,
            Self::BodyTooLarge { .. } => 413,
            Self::Mismatch { .. } => 422,
            Self::AnswerTooLarge { .. }
            | Self::AnswerBroken
            | Self::AnswerNotStorable(_)
            | Self::HandlerAborted
            | Self::TransactionFailed
            | Self::NoTransaction(_)
            | Self::Nested
            | Self::OutcomeUnknownWithoutKey
            | Self::Internal => 500,
            Self::HandlerTooSlow { .. } | Self::Unavailable | Self::OutcomeUnknown => 503,
        }
    }

    /// The name in `code`, for programs.
    ///
    /// ```
    /// use payonce_http::Refusal;
    ///
    /// let changed = vec!["body.quantity".to_owned()];
    /// assert_eq!(Refusal::Mismatch { changed }.code(), "idempotency-key-reused");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyMissing => "idempotency-key-missing",
            Self::KeyInvalid(_) => "idempotency-key-invalid",
            Self::OwnerUnknown => "owner-unknown",
            Self::InProgress { .. } => "idempotency-key-in-use",
            Self::Mismatch { .. } => "idempotency-key-reused",
            Self::Expired => "idempotency-key-expired",
            Self::BodyTooLarge { .. } => "payload-too-large",
            Self::BodyTooSlow => "request-timeout",
            Self::BodyBroken => "body-broken",
            Self::AnswerTooLarge { .. } => "answer-too-large",
            Self::AnswerBroken => "answer-broken",
            Self::AnswerNotStorable(_) => "answer-not-storable",
            Self::HandlerTooSlow { .. } => "handler-too-slow",
            Self::HandlerAborted => "handler-aborted",
            Self::TransactionFailed => "transaction-failed",
            Self::NoTransaction(_) => "no-transaction",
            Self::Nested => "nested-layers",
            Self::Unavailable => "database-unavailable",
            Self::OutcomeUnknown | Self::OutcomeUnknownWithoutKey => "outcome-unknown",
            Self::Internal => "internal-error",
        }
    }

    /// One line for people.
    pub fn title(&self) -> &'static str {
        match self {
            Self::KeyMissing => "The Idempotency-Key header is missing",
            Self::KeyInvalid(_) => "The Idempotency-Key header is not valid",
            Self::OwnerUnknown => "It is not known whose request this is",
            Self::InProgress { .. } => "The first request with this key is still in progress",
            Self::Mismatch { .. } => "The key was used with another request",
            Self::Expired => "The key has expired, and was used",
            Self::BodyTooLarge { .. } => "The body is too large",
            Self::BodyTooSlow => "The body did not arrive in time",
            Self::BodyBroken => "The body ended early",
            Self::AnswerTooLarge { .. } => "The answer is too large to be stored",
            Self::AnswerBroken => "The answer ended early",
            Self::AnswerNotStorable(_) => "The answer cannot be stored",
            Self::HandlerTooSlow { .. } => "The request took too long",
            Self::HandlerAborted => "Internal error",
            Self::TransactionFailed => "Internal error",
            Self::NoTransaction(_) => "The handler has no transaction",
            Self::Nested => "One idempotency layer is inside another",
            Self::Unavailable => "The database cannot be reached",
            Self::OutcomeUnknown => "The outcome is not known yet",
            Self::OutcomeUnknownWithoutKey => "The outcome is not known",
            Self::Internal => "Internal error",
        }
    }

    /// What happened and what to do, in sentences.
    ///
    /// ```
    /// use payonce_http::Refusal;
    ///
    /// let refusal = Refusal::BodyTooLarge { limit: 1024 };
    /// assert_eq!(refusal.title(), "The body is too large");
    /// assert_eq!(refusal.detail(), "A body has at most 1024 bytes. Nothing was stored.");
    /// ```
    pub fn detail(&self) -> String {
        match self {
            Self::KeyMissing => {
                "This request must carry an Idempotency-Key, so that it can be repeated safely. Nothing was stored.".to_owned()
            }
            Self::KeyInvalid(why) => format!("{why}. Nothing was stored."),
            Self::OwnerUnknown => "The request has no known owner, to whom its key would belong. Nothing was stored.".to_owned(),
            Self::InProgress { .. } => {
                "Wait for Retry-After and send the same request with the same key: it gets the first one's answer.".to_owned()
            }
            Self::Mismatch { .. } => {
                "changed names the parts that differ from the first request with this key. Send exactly what was sent first, or use a new key for a new request.".to_owned()
            }
            Self::Expired => "The key was used before, and has expired. A new request needs a new key.".to_owned(),
            Self::BodyTooLarge { limit } => format!("A body has at most {limit} bytes. Nothing was stored."),
            Self::BodyTooSlow => "Nothing was stored: send the same request again.".to_owned(),
            Self::BodyBroken => "The body could not be read completely. Nothing was stored.".to_owned(),
            Self::AnswerTooLarge { limit } => {
                format!("An answer under an idempotency key has at most {limit} bytes, and cannot be an endless stream. Nothing was stored, and what the handler wrote was undone.")
            }
            Self::AnswerNotStorable(why) => {
                format!("{why}. Nothing was stored, and what the handler wrote was undone.")
            }
            Self::HandlerTooSlow { limit } => format!(
                "The handler did not end within {} ms. Nothing was stored, what it wrote was undone, and the key is still good. If the handler uses a second connection, it may have waited there for a row that its own transaction holds: make all its queries through its `Tx`.",
                limit.as_millis()
            ),
            Self::NoTransaction(why) => why.to_string(),
            Self::Nested => {
                "The inner layer would commit what the outer one could not undo: put one layer around each route.".to_owned()
            }
            Self::OutcomeUnknown => {
                "The connection to the database was lost during the commit. Send the same request with the same key: it finds the outcome.".to_owned()
            }
            Self::OutcomeUnknownWithoutKey => {
                "The connection to the database was lost during the commit, which may have happened. The request had no key, so sending it again may do it twice: look first.".to_owned()
            }
            Self::Unavailable => "Nothing was stored: send the same request with the same key again, after Retry-After.".to_owned(),
            Self::AnswerBroken | Self::HandlerAborted | Self::TransactionFailed | Self::Internal => {
                "Nothing was stored, and the key is still good. The cause is in the log.".to_owned()
            }
        }
    }

    /// Whole seconds after which to send the same request again.
    fn retry_after(&self) -> Option<u64> {
        let retry_after = match self {
            Self::InProgress { retry_after } => *retry_after,
            Self::HandlerTooSlow { .. } | Self::Unavailable | Self::OutcomeUnknown => RETRY_AFTER,
            _ => return None,
        };
        Some(retry_after.as_secs().max(1))
    }

    /// The refusal in the form in which it is sent if the route has none of its own: `application/problem+json` with `title`, `status`,
    /// `detail` and `code`, and for [`Refusal::Mismatch`] also `changed`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use payonce_http::Refusal;
    ///
    /// let reply = Refusal::InProgress { retry_after: Duration::from_secs(1) }.problem();
    /// assert_eq!(reply.status, 409);
    /// assert!(reply.headers.contains(&("retry-after".to_owned(), "1".to_owned())));
    /// ```
    pub fn problem(&self) -> Reply {
        let mut body = Map::new();
        body.insert("title".to_owned(), json!(self.title()));
        body.insert("status".to_owned(), json!(self.status()));
        body.insert("detail".to_owned(), json!(self.detail()));
        body.insert("code".to_owned(), json!(self.code()));
        if let Self::Mismatch { changed } = self {
            body.insert("changed".to_owned(), json!(changed));
        }
        let mut headers = vec![(
            "content-type".to_owned(),
            "application/problem+json".to_owned(),
        )];
        if let Some(seconds) = self.retry_after() {
            headers.push(("retry-after".to_owned(), seconds.to_string()));
        }
        Reply {
            status: self.status(),
            headers,
            body: Bytes::from(Value::Object(body).to_string()),
        }
    }

    /// Writes it to the log if the service's author has something to correct. [`Route::refuse`](crate::Route::refuse) does this, too.
    ///
    /// ```
    /// use payonce_http::{NoTransaction, Refusal};
    ///
    /// // An adapter's extractor, before it answers.
    /// Refusal::NoTransaction(NoTransaction::NoLayer).log();
    /// ```
    pub fn log(&self) {
        if self.status() == 500 || matches!(self, Self::HandlerTooSlow { .. }) {
            tracing::error!(code = self.code(), "{}: {}", self.title(), self.detail());
        }
    }
}

impl From<IdempotencyError> for Refusal {
    fn from(error: IdempotencyError) -> Self {
        let refusal = match &error {
            IdempotencyError::FingerprintMismatch { changed, .. } => {
                return Self::Mismatch {
                    changed: changed.clone(),
                };
            }
            IdempotencyError::InProgress { retry_after } => {
                return Self::InProgress {
                    retry_after: *retry_after,
                };
            }
            IdempotencyError::Expired { .. } => return Self::Expired,
            IdempotencyError::InvalidResponse(why) => {
                return Self::AnswerNotStorable(why.to_string());
            }
            IdempotencyError::Overloaded => Self::Unavailable,
            IdempotencyError::OutcomeUnknown(_) => Self::OutcomeUnknown,
            IdempotencyError::Aborted(_) => Self::HandlerAborted,
            error => match error.database_error() {
                Some(error) if has_sqlstate(error, &[IN_FAILED_TRANSACTION]) => {
                    Self::TransactionFailed
                }
                Some(error) if is_transient(error) => Self::Unavailable,
                _ => Self::Internal,
            },
        };
        tracing::error!(
            error = &error as &dyn std::error::Error,
            code = refusal.code(),
            "a request was not answered"
        );
        refusal
    }
}
