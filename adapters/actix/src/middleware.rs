//! The way of one request through the wrap.
//!
//! A handler's future is not `Send` here, so it runs on its worker's own thread, in a task that its client's leaving does not end.
//! The engine's task hands the transaction over to it, and waits for how it ended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{BodyLimitExceeded, MessageBody, to_bytes_limited};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, forward_ready};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, ResponseError};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream;
use payonce_engine::{IdempotencyKey, SignedRequest};
use payonce_http::{Ending, Executed, Handled, HandlerAnswer, Refusal, Reply, Route, Slot};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::extract::Executing;
use crate::reply::respond;

/// The service that [`Idempotent`](crate::Idempotent) creates, which has an example.
pub struct IdempotentMiddleware<S> {
    inner: Rc<S>,
    rules: Rc<Rules>,
}

/// A route's function of the request that names the key's owner.
pub(crate) type OwnerOf = Arc<dyn Fn(&ServiceRequest) -> Option<String> + Send + Sync>;

pub(crate) struct Rules {
    pub(crate) route: Route,
    pub(crate) owner: OwnerOf,
}

impl<S> IdempotentMiddleware<S> {
    pub(crate) fn new(inner: Rc<S>, rules: Rc<Rules>) -> Self {
        Self { inner, rules }
    }
}

impl<S, B> Service<ServiceRequest> for IdempotentMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<ServiceResponse, Error>>>>;

    forward_ready!(inner);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        if !self.rules.route.covers(request.method().as_str()) {
            let passed = self.inner.call(request);
            return Box::pin(async move { passed.await.map(ServiceResponse::map_into_boxed_body) });
        }
        let (inner, rules) = (Rc::clone(&self.inner), Rc::clone(&self.rules));
        Box::pin(async move {
            match rules.read(&mut request).await {
                Ok(read) => execute(inner, &rules, request, read).await,
                Err(refusal) => {
                    let response = respond(rules.route.refuse(&refusal));
                    Ok(request.into_response(response))
                }
            }
        })
    }
}

/// What was read of a request.
struct Read {
    key: Option<IdempotencyKey>,
    signed: Option<SignedRequest>,
}

impl Rules {
    /// Reads a request to its end, and gives it its body back.
    async fn read(&self, request: &mut ServiceRequest) -> Result<Read, Refusal> {
        if request.extensions().contains::<Executing>() {
            return Err(Refusal::Nested);
        }
        let keys = request.headers().get_all("idempotency-key");
        let key = self.route.key(keys.map(HeaderValue::as_bytes))?;
        let owner = (self.owner)(request).ok_or(Refusal::OwnerUnknown)?;
        let length = request.headers().get(CONTENT_LENGTH);
        self.route.check_length(length.map(HeaderValue::as_bytes))?;
        let mut payload = request.take_payload();
        let body = self.route.body_bounded(self.collect(&mut payload)).await?;
        let signed = match &key {
            Some(key) => Some(self.sign(owner, key.clone(), request, &body)?),
            None => None,
        };
        let body = stream::once(std::future::ready(Ok(body)));
        request.set_payload(Payload::Stream {
            payload: Box::pin(body),
        });
        Ok(Read { key, signed })
    }

    async fn collect(&self, payload: &mut Payload) -> Result<Bytes, Refusal> {
        let limit = self.route.max_body;
        let mut body = BytesMut::new();
        while let Some(piece) = payload.next().await {
            let piece = piece.map_err(|_| Refusal::BodyBroken)?;
            if body.len() + piece.len() > limit {
                return Err(Refusal::BodyTooLarge { limit });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn sign(
        &self,
        owner: String,
        key: IdempotencyKey,
        request: &ServiceRequest,
        body: &Bytes,
    ) -> Result<SignedRequest, Refusal> {
        let (uri, headers) = (request.uri(), request.headers());
        let mut signed_headers = Vec::new();
        for name in &self.route.signed_headers {
            let values = headers.get_all(name);
            signed_headers.extend(values.map(|value| (name.clone(), value.as_bytes().to_vec())));
        }
        let request = payonce_http::Request {
            method: request.method().as_str(),
            path: uri.path(),
            query: uri.query(),
            content_type: headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes),
            is_encoded: headers.contains_key(CONTENT_ENCODING),
            signed_headers,
            body,
        };
        self.route.sign(owner, key, &request)
    }
}

/// What the handler's task leaves for a client that is still there.
enum Left {
    /// The response, as it is.
    Response(ServiceResponse),
    /// The request, whose answer comes from the engine.
    Request(HttpRequest),
    /// What a middleware further in failed with.
    Error(Error),
    /// The handler was ended, and the request with it.
    Nothing,
}

/// Marks a response that stays on this thread.
struct StaysHere;

async fn execute<S, B>(
    inner: Rc<S>,
    rules: &Rc<Rules>,
    request: ServiceRequest,
    read: Read,
) -> Result<ServiceResponse, Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    let (hand_over, handed_over) = oneshot::channel::<Slot>();
    let (ended, ending) = oneshot::channel();
    let handler = async move |slot: Slot| {
        // Where the client has gone before the handler began, nothing is done.
        drop(hand_over.send(slot));
        let aborted = Handled::Refused(Refusal::HandlerAborted);
        ending.await.unwrap_or(aborted)
    };
    let executing = rules.route.execute::<StaysHere, _, _>(read.signed, handler);
    let mut executing = std::pin::pin!(executing);
    let slot = match select(handed_over, executing.as_mut()).await {
        Either::Left((Ok(slot), _)) => slot,
        Either::Left((Err(_), _)) => return Ok(answer(executing.await, request)),
        Either::Right((executed, _)) => return Ok(answer(executed, request)),
    };
    request.extensions_mut().insert(Executing {
        slot,
        key: read.key,
    });
    let (local, here) = oneshot::channel();
    let rules = Rc::clone(rules);
    let handling = async move {
        let (handled, left) = handle(&*inner, &rules.route, request).await;
        // Nobody is there to take it where the client has gone.
        drop(local.send(left));
        drop(ended.send(handled));
    };
    actix_web::rt::spawn(handling.in_current_span());
    let executed = executing.await;
    let left = here.await.unwrap_or(Left::Nothing);
    match (executed, left) {
        (_, Left::Error(error)) => Err(error),
        (Executed::Forgotten(StaysHere), Left::Response(response)) => Ok(response),
        (Executed::Reply(reply), Left::Response(response)) => {
            Ok(response.into_response(respond(reply)))
        }
        (Executed::Reply(reply), Left::Request(request)) => {
            Ok(ServiceResponse::new(request, respond(reply)))
        }
        (Executed::Reply(reply), Left::Nothing) => Err(Unanswered(reply).into()),
        (Executed::Forgotten(StaysHere), Left::Request(_) | Left::Nothing) => {
            Err(Unanswered(Refusal::Internal.problem()).into())
        }
    }
}

/// The engine's answer to a request that the handler did not run for.
fn answer(executed: Executed<StaysHere>, request: ServiceRequest) -> ServiceResponse {
    let reply = match executed {
        Executed::Reply(reply) => reply,
        Executed::Forgotten(StaysHere) => Refusal::Internal.problem(),
    };
    request.into_response(respond(reply))
}

/// Runs the handler in its time, and collects an answer that is to be stored.
async fn handle<S, B>(
    inner: &S,
    route: &Route,
    request: ServiceRequest,
) -> (Handled<StaysHere>, Left)
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody + 'static,
{
    let answered = async {
        let response = match inner.call(request).await {
            Ok(response) => response,
            Err(error) => return (Handled::Forgotten(StaysHere), Left::Error(error)),
        };
        if (route.ending)(response.status().as_u16()) == Ending::Forget {
            let response = response.map_into_boxed_body();
            return (Handled::Forgotten(StaysHere), Left::Response(response));
        }
        let (request, response) = response.into_parts();
        (collected(route, response).await, Left::Request(request))
    };
    let bounded = route.bounded(answered).await;
    bounded.unwrap_or_else(|refusal| (Handled::Refused(refusal), Left::Nothing))
}

async fn collected<B: MessageBody>(route: &Route, response: HttpResponse<B>) -> Handled<StaysHere> {
    let limit = route.max_answer;
    let (head, body) = response.into_parts();
    let body = match to_bytes_limited(body, limit).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Handled::Refused(Refusal::AnswerBroken),
        Err(BodyLimitExceeded { .. }) => {
            return Handled::Refused(Refusal::AnswerTooLarge { limit });
        }
    };
    let headers = head.headers().iter();
    Handled::Answered(HandlerAnswer {
        status: head.status().as_u16(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
        body,
    })
}

/// A reply to a request that is gone.
#[derive(Debug)]
struct Unanswered(Reply);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handler did not end in order")
    }
}

impl ResponseError for Unanswered {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        respond(self.0.clone())
    }
}
