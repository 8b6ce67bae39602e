//! The rules of a route.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use payonce_engine::{Engine, IdempotencyKey, ScopedKey, SignedRequest, Wait};
use tokio::time::timeout;

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Request;

/// Maximum size of a request's body in bytes, the same as of the frameworks' own JSON extractors.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// Maximum size of an answer's body in bytes. A stored answer is a column of a row.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long a handler may take. PostgreSQL ends a transaction that is idle for 10 s.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a handler's writes and its answer are kept.
///
/// ```
/// use payonce_http::Ending;
///
/// assert_eq!(Ending::of_status(303), Ending::Keep);
/// assert_eq!(Ending::of_status(404), Ending::Undo);
/// assert_eq!(Ending::of_status(429), Ending::Forget);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its writes, the key and the answer are committed together.
    Keep,
    /// Its writes are undone, and the answer is stored: the same key gets it again.
    Undo,
    /// Its writes are undone, and nothing is stored: the key is still good.
    Forget,
}

impl Ending {
    /// The default rule of a route: 2xx and 3xx keep, 4xx undoes, and everything else is forgotten. 401, 407, 408, 425 and 429 are also
    /// forgotten, because they do not depend on the request alone, and the next attempt may get another status.
    ///
    /// ```
    /// use payonce_http::Ending;
    ///
    /// /// A rule of one's own often changes one status and leaves the others to this one.
    /// fn ending(status: u16) -> Ending {
    ///     match status {
    ///         // The stock may change: the same key may succeed later.
    ///         409 => Ending::Forget,
    ///         status => Ending::of_status(status),
    ///     }
    /// }
    /// assert_eq!(ending(409), Ending::Forget);
    /// assert_eq!(ending(422), Ending::Undo);
    /// ```
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=399 => Self::Keep,
            401 | 407 | 408 | 425 | 429 => Self::Forget,
            400..=499 => Self::Undo,
            _ => Self::Forget,
        }
    }
}

type EndingRule = Arc<dyn Fn(u16) -> Ending + Send + Sync>;
type RefusalRule = Arc<dyn Fn(&Refusal) -> Option<Reply> + Send + Sync>;

/// A route's rules, and the engine that keeps them. An adapter's builder sets the fields.
///
/// ```no_run
/// # async fn execute(engine: payonce_engine::Engine, signed: payonce_engine::SignedRequest) {
/// use payonce_http::{Executed, Handled, HandlerAnswer, Refusal, Route, Slot};
///
/// let mut route = Route::new(&engine, "create_order");
/// route.max_answer = 64 * 1024;
/// let handler = async |slot: Slot| match slot.take() {
///     Ok(mut tx) => match sqlx::query("insert into orders (sku) values ('tea')").execute(&mut *tx).await {
///         Ok(_) => Handled::Answered(HandlerAnswer { status: 201, headers: Vec::new(), body: "ordered".into() }),
///         Err(_) => Handled::Refused(Refusal::Internal),
///     },
///     Err(why) => Handled::Refused(Refusal::NoTransaction(why)),
/// };
/// match route.execute::<(), _, _>(Some(signed), handler).await {
///     Executed::Reply(reply) => println!("{}", reply.status),
///     Executed::Forgotten(()) => {}
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Route {
    /// The engine that decides which request executes.
    pub engine: Engine,
    /// The name of what the route does, 1–255 bytes, which the service chooses. It is part of each key's scope.
    pub operation: String,
    /// How long a key is remembered; `None` for the engine's own setting.
    pub ttl: Option<Duration>,
    /// How long a duplicate waits for the first request.
    pub wait: Wait,
    /// Whether a request without a key is refused. Otherwise it is executed in a transaction of its own, and nothing is stored.
    pub requires_key: bool,
    /// The headers of an answer that are stored and sent, in lower case; `None` for all.
    pub kept_headers: Option<BTreeSet<String>>,
    /// The headers of a request that are signed, in lower case.
    pub signed_headers: Vec<String>,
    /// The fields of a JSON body that are not signed, such as `meta.sent_at` or `items[].sent_at`.
    pub unsigned_fields: Vec<String>,
    /// Maximum size of a request's body, in bytes.
    pub max_body: usize,
    /// Maximum size of an answer's body, in bytes.
    pub max_answer: usize,
    /// How long the handler may take, its answer's body included.
    pub timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// Whether an answer and its writes are kept, by its status.
    pub ending: EndingRule,
    /// The route's own form of a refusal; `None` for [`Refusal::problem`].
    pub refusals: Option<RefusalRule>,
}

impl Route {
    /// Creates a route with the default rules.
    pub fn new(engine: &Engine, operation: impl Into<String>) -> Self {
        Self {
            engine: engine.clone(),
            operation: operation.into(),
            ttl: None,
            wait: Wait::Configured,
            requires_key: true,
            kept_headers: None,
            signed_headers: Vec::new(),
            unsigned_fields: Vec::new(),
            max_body: MAX_BODY,
            max_answer: MAX_ANSWER,
            timeout: TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            ending: Arc::new(Ending::of_status),
            refusals: None,
        }
    }

    /// Returns true if requests of this method go through the engine. GET, HEAD, OPTIONS and TRACE are safe (RFC 9110, 9.2.1) and do
    /// not.
    ///
    /// ```no_run
    /// # fn covers(engine: payonce_engine::Engine) {
    /// let route = payonce_http::Route::new(&engine, "create_order");
    /// assert!(route.covers("POST"));
    /// assert!(!route.covers("GET"));
    /// # }
    /// ```
    pub fn covers(&self, method: &str) -> bool {
        !matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// Reads the key from the values of the `Idempotency-Key` headers, like [`key_of`].
    ///
    /// ```no_run
    /// # fn key(engine: payonce_engine::Engine) {
    /// use payonce_http::{Refusal, Route};
    ///
    /// let mut route = Route::new(&engine, "create_order");
    /// assert_eq!(route.key([].into_iter()), Err(Refusal::KeyMissing));
    /// route.requires_key = false;
    /// assert_eq!(route.key([].into_iter()), Ok(None));
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refusal::KeyMissing`] if the route requires one, and [`Refusal::KeyInvalid`].
    pub fn key<'a>(
        &self,
        values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<IdempotencyKey>, Refusal> {
        match key_of(values)? {
            None if self.requires_key => Err(Refusal::KeyMissing),
            key => Ok(key),
        }
    }

    /// Refuses a body by the length that it announces, before any of it is read.
    ///
    /// ```no_run
    /// # fn check(engine: payonce_engine::Engine) {
    /// use payonce_http::{Refusal, Route};
    ///
    /// let mut route = Route::new(&engine, "create_order");
    /// route.max_body = 1024;
    /// assert_eq!(route.check_length(Some(b"1025")), Err(Refusal::BodyTooLarge { limit: 1024 }));
    /// // A body without a length is counted while it is read.
    /// assert_eq!(route.check_length(None), Ok(()));
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refusal::BodyTooLarge`].
    pub fn check_length(&self, content_length: Option<&[u8]>) -> Result<(), Refusal> {
        let text = content_length.and_then(|length| std::str::from_utf8(length).ok());
        let length = text.and_then(|length| length.trim().parse::<u64>().ok());
        let limit = u64::try_from(self.max_body).unwrap_or(u64::MAX);
        match length {
            Some(length) if length > limit => Err(Refusal::BodyTooLarge {
                limit: self.max_body,
            }),
            _ => Ok(()),
        }
    }

    /// Signs a request: see the example of [`Request`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Internal`] if the engine does not take the owner's or the operation's name.
    pub fn sign(
        &self,
        owner: String,
        key: IdempotencyKey,
        request: &Request<'_>,
    ) -> Result<SignedRequest, Refusal> {
        let key = ScopedKey::new(owner, self.operation.clone(), key);
        let form = request.form(&self.unsigned_fields);
        let signed = self
            .engine
            .sign(key, &form)
            .map_err(|_| Refusal::Internal)?;
        Ok(match self.ttl {
            Some(ttl) => signed.with_ttl(ttl),
            None => signed,
        })
    }

    /// Runs a handler for at most [`Route::timeout`], and drops it after that.
    ///
    /// ```no_run
    /// # async fn handle<R>(route: payonce_http::Route, handler: impl Future<Output = payonce_http::Handled<R>>) {
    /// use payonce_http::Handled;
    ///
    /// // The last thing that an adapter does before it returns to `Route::execute`.
    /// let handled = route.bounded(handler).await.unwrap_or_else(Handled::Refused);
    /// # drop(handled);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refusal::HandlerTooSlow`].
    pub async fn bounded<T>(&self, handler: impl Future<Output = T>) -> Result<T, Refusal> {
        timeout(self.timeout, handler)
            .await
            .map_err(|_| Refusal::HandlerTooSlow {
                limit: self.timeout,
            })
    }

    /// Reads the body of a request for at most [`Route::body_timeout`].
    ///
    /// ```no_run
    /// # async fn read(route: payonce_http::Route, framework: impl Future<Output = std::io::Result<Vec<u8>>>)
    /// # -> Result<Vec<u8>, payonce_http::Refusal> {
    /// use payonce_http::Refusal;
    ///
    /// route.body_bounded(async { framework.await.map_err(|_| Refusal::BodyBroken) }).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refusal::BodyTooSlow`], and the error of the body.
    pub async fn body_bounded<T>(
        &self,
        body: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        timeout(self.body_timeout, body)
            .await
            .unwrap_or(Err(Refusal::BodyTooSlow))
    }

    /// Whether a header of an answer is stored and sent. Those of the message itself are the server's.
    pub(crate) fn keeps_header(&self, name: &str) -> bool {
        !OF_THE_MESSAGE.contains(&name)
            && self
                .kept_headers
                .as_ref()
                .is_none_or(|kept| kept.contains(name))
    }

    /// Returns the refusal in this route's form, and logs it if the service's author has to correct something.
    ///
    /// ```no_run
    /// # fn refuse(engine: payonce_engine::Engine) {
    /// use std::sync::Arc;
    ///
    /// use payonce_http::{Refusal, Reply, Route};
    ///
    /// let mut route = Route::new(&engine, "create_order");
    /// route.refusals = Some(Arc::new(|refusal| match refusal {
    ///     Refusal::KeyMissing => Some(Reply { status: 428, headers: Vec::new(), body: "send a key".into() }),
    ///     // All others as problem details.
    ///     _ => None,
    /// }));
    /// assert_eq!(route.refuse(&Refusal::KeyMissing).status, 428);
    /// # }
    /// ```
    pub fn refuse(&self, refusal: &Refusal) -> Reply {
        refusal.log();
        let own = self.refusals.as_ref().and_then(|form| form(refusal));
        own.unwrap_or_else(|| refusal.problem())
    }
}

/// Reads the key from the values of a request's `Idempotency-Key` headers. Returns `None` if there is none.
///
/// ```
/// use payonce_http::{Refusal, key_of};
///
/// let key = key_of([b"cart-17".as_slice()].into_iter()).expect("a key");
/// assert_eq!(key.expect("one").as_str(), "cart-17");
/// assert_eq!(key_of([].into_iter()), Ok(None));
/// let two = key_of([b"a".as_slice(), b"b"].into_iter());
/// assert!(matches!(two, Err(Refusal::KeyInvalid(_))));
/// ```
///
/// # Errors
///
/// [`Refusal::KeyInvalid`].
pub fn key_of<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<IdempotencyKey>, Refusal> {
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let why = "the Idempotency-Key header was sent more than once";
        return Err(Refusal::KeyInvalid(why.to_owned()));
    }
    IdempotencyKey::from_header(value)
        .map(Some)
        .map_err(|error| Refusal::KeyInvalid(error.to_string()))
}

/// Headers of a message on its way (RFC 9110, 7.6.1), and those that tell a replay from a first answer, in lower case. The engine
/// refuses to store them.
const OF_THE_MESSAGE: [&str; 11] = [
    "connection",
    "content-length",
    "date",
    "idempotency-key-expires",
    "idempotent-replayed",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_says_nothing_of_the_request_is_not_stored() {
        for (status, expected) in [
            (200, Ending::Keep),
            (303, Ending::Keep),
            (400, Ending::Undo),
            (404, Ending::Undo),
            (422, Ending::Undo),
            (401, Ending::Forget),
            (429, Ending::Forget),
            (500, Ending::Forget),
            (101, Ending::Forget),
        ] {
            assert_eq!(Ending::of_status(status), expected, "{status}");
        }
    }
}
