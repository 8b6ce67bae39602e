//! A request is executed: its handler runs at most once for its key, inside the engine's transaction.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use payonce_engine::{IdempotencyError, Outcome, SignedRequest, StoredResponse, Transaction};

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::route::{Ending, Route};
use crate::slot::Slot;

/// What a handler answered, collected.
///
/// ```
/// use payonce_http::HandlerAnswer;
///
/// let answer = HandlerAnswer {
///     status: 201,
///     headers: vec![("location".to_owned(), b"/orders/7".to_vec())],
///     body: "ordered".into(),
/// };
/// # let _ = answer;
/// ```
#[derive(Clone, Debug)]
pub struct HandlerAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Bytes,
}

/// How a handler ended. `R` is the framework's own response.
///
/// ```
/// use payonce_http::{Ending, Handled, HandlerAnswer};
///
/// /// What an adapter returns for a response. A real one also bounds the body by `Route::max_answer`.
/// fn handled(status: u16, body: String) -> Handled<String> {
///     match Ending::of_status(status) {
///         // It need not be collected: it may be a stream.
///         Ending::Forget => Handled::Forgotten(body),
///         Ending::Keep | Ending::Undo => Handled::Answered(HandlerAnswer { status, headers: Vec::new(), body: body.into() }),
///     }
/// }
/// assert!(matches!(handled(503, "later".to_owned()), Handled::Forgotten(_)));
/// ```
#[derive(Debug)]
pub enum Handled<R> {
    /// It answered, and the answer has to be stored.
    Answered(HandlerAnswer),
    /// It answered, and the answer is not stored ([`Ending::Forget`]). The response is sent to this client unchanged.
    Forgotten(R),
    /// It did not answer properly, for example in time.
    Refused(Refusal),
}

/// What is sent to the client, as in the example of [`Route`].
#[derive(Debug)]
pub enum Executed<R> {
    /// An answer, a replay or a refusal.
    Reply(Reply),
    /// The handler's response, unchanged.
    Forgotten(R),
}

/// Tells the engine to undo everything. What the client is told takes another way, because a framework's response may be neither an
/// error nor `Sync`.
#[derive(Debug)]
struct Undone;

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handler's answer is not to be stored")
    }
}

impl std::error::Error for Undone {}

/// What a handler left whose answer is not stored.
enum Left<R> {
    Response(R),
    /// An answer to a request without a key. It is not stored, but it is sent.
    Answer(Box<StoredResponse>),
    Refusal(Refusal),
}

/// Carries it past the engine.
struct LeftOver<R>(Arc<Mutex<Option<Left<R>>>>);

impl<R> LeftOver<R> {
    fn put(&self, left: Left<R>) -> Undone {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        Undone
    }

    fn take(&self) -> Option<Left<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R> Clone for LeftOver<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Route {
    /// Executes a request. `signed` is `None` if the request has no key and needs none. `handler` is called at most once, with a
    /// [`Slot`] from which it takes its transaction. Dropping this future does not stop a handler that has begun. [`Route`] has an example.
    pub async fn execute<R, F, Fut>(&self, signed: Option<SignedRequest>, handler: F) -> Executed<R>
    where
        R: Send + 'static,
        F: FnOnce(Slot) -> Fut + Send + 'static,
        Fut: Future<Output = Handled<R>> + Send + 'static,
    {
        let left = LeftOver(Arc::new(Mutex::new(None)));
        let has_key = signed.is_some();
        let done = match signed {
            Some(signed) => self.execute_once(signed, handler, left.clone()).await,
            None => self.execute_without_key(handler, left.clone()).await,
        };
        let refusal = match (done, left.take()) {
            (Ok(reply), _) => return Executed::Reply(reply),
            (Err(_), Some(Left::Response(response))) => return Executed::Forgotten(response),
            (Err(_), Some(Left::Answer(response))) => return Executed::Reply(reply_of(*response)),
            (Err(_), Some(Left::Refusal(refusal))) => refusal,
            (Err(IdempotencyError::OutcomeUnknown(_)), None) if !has_key => {
                Refusal::OutcomeUnknownWithoutKey
            }
            (Err(error), None) => error.into(),
        };
        Executed::Reply(self.refuse(&refusal))
    }

    async fn execute_once<R, F, Fut>(
        &self,
        signed: SignedRequest,
        handler: F,
        left: LeftOver<R>,
    ) -> Result<Reply, IdempotencyError>
    where
        R: Send + 'static,
        F: FnOnce(Slot) -> Fut + Send + 'static,
        Fut: Future<Output = Handled<R>> + Send + 'static,
    {
        let route = self.clone();
        let work = async move |transaction: Transaction| {
            let (ending, response) = route
                .run(transaction, handler)
                .await
                .map_err(|it| left.put(it))?;
            Ok(match ending {
                Ending::Keep => Outcome::Completed(response),
                Ending::Undo => Outcome::Failed(response),
                Ending::Forget => return Err(left.put(Left::Answer(Box::new(response)))),
            })
        };
        let answer = self
            .engine
            .execute_signed::<Undone, _, _>(signed, self.wait, work);
        answer.await.map(Reply::from)
    }

    /// Executes a request without a key, in a transaction that is committed if an answer under a key would keep its writes.
    async fn execute_without_key<R, F, Fut>(
        &self,
        handler: F,
        left: LeftOver<R>,
    ) -> Result<Reply, IdempotencyError>
    where
        R: Send + 'static,
        F: FnOnce(Slot) -> Fut + Send + 'static,
        Fut: Future<Output = Handled<R>> + Send + 'static,
    {
        let route = self.clone();
        let work = async move |transaction: Transaction| {
            let (ending, response) = route
                .run(transaction, handler)
                .await
                .map_err(|it| left.put(it))?;
            match ending {
                Ending::Keep => Ok(response),
                Ending::Undo | Ending::Forget => Err(left.put(Left::Answer(Box::new(response)))),
            }
        };
        let response = self.engine.transact::<_, Undone, _, _>(work);
        response.await.map(reply_of)
    }

    /// Runs the handler, and takes the transaction back.
    async fn run<R, F, Fut>(
        &self,
        transaction: Transaction,
        handler: F,
    ) -> Result<(Ending, StoredResponse), Left<R>>
    where
        F: FnOnce(Slot) -> Fut,
        Fut: Future<Output = Handled<R>>,
    {
        let slot = Slot::holding(transaction);
        let handled = handler(slot.clone()).await;
        if !slot.close() {
            tracing::error!(
                "the handler gave its `Tx` to something that outlives it: nothing can be committed"
            );
            return Err(Left::Refusal(Refusal::HandlerAborted));
        }
        match handled {
            Handled::Answered(answer) => self.to_store(answer).map_err(Left::Refusal),
            Handled::Forgotten(response) => Err(Left::Response(response)),
            Handled::Refused(refusal) => Err(Left::Refusal(refusal)),
        }
    }

    fn to_store(&self, answer: HandlerAnswer) -> Result<(Ending, StoredResponse), Refusal> {
        let ending = (self.ending)(answer.status);
        let kept = answer
            .headers
            .into_iter()
            .filter(|(name, _)| self.keeps_header(name));
        let headers = kept.map(|(name, value)| match String::from_utf8(value) {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Refusal::AnswerNotStorable(format!(
                "the value of the header {name} is not text"
            ))),
        });
        let headers: Vec<(String, String)> = headers.collect::<Result<_, _>>()?;
        // HTTP servers send none, whatever a handler has put there.
        let body = match answer.status {
            204 | 205 | 304 => Bytes::new(),
            _ => answer.body,
        };
        let response = StoredResponse::new(answer.status, headers, body)
            .map_err(|why| Refusal::AnswerNotStorable(why.to_string()))?;
        Ok((ending, response))
    }
}

fn reply_of(response: StoredResponse) -> Reply {
    Reply {
        status: response.status,
        headers: response.headers,
        body: response.body,
    }
}
