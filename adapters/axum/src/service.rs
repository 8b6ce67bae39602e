//! The way of one request through the layer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{self, Body, Bytes};
use axum::extract::{OriginalUri, Request};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::Response;
use http_body_util::LengthLimitError;
use payonce_engine::{IdempotencyKey, SignedRequest};
use payonce_http::{Ending, Executed, Handled, HandlerAnswer, Refusal, Route, Slot};
use tower_service::Service;

use crate::extract::Executing;
use crate::nesting;
use crate::reply::respond;

/// The service that [`IdempotentLayer`](crate::IdempotentLayer) creates, which has an example.
pub struct Idempotent<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S: Clone> Clone for Idempotent<S> {
    fn clone(&self) -> Self {
        nesting::cloned();
        Self {
            inner: self.inner.clone(),
            rules: Arc::clone(&self.rules),
        }
    }
}

/// A route's function of the request that names the key's owner.
pub(crate) type OwnerOf = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;

struct Rules {
    route: Route,
    owner: OwnerOf,
}

impl<S> Idempotent<S> {
    pub(crate) fn new(inner: S, route: Route, owner: OwnerOf) -> Self {
        Self {
            inner,
            rules: Arc::new(Rules { route, owner }),
        }
    }
}

impl<S> Service<Request> for Idempotent<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that is ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        if !self.rules.route.covers(request.method().as_str()) {
            return Box::pin(inner.call(request));
        }
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            match rules.read(request).await {
                Ok(read) => rules.execute(inner, read).await,
                Err(refusal) => Ok(respond(rules.route.refuse(&refusal))),
            }
        })
    }
}

/// A request that was read to its end and signed.
struct ReadRequest {
    parts: Parts,
    body: Bytes,
    key: Option<IdempotencyKey>,
    signed: Option<SignedRequest>,
}

impl Rules {
    async fn read(&self, request: Request) -> Result<ReadRequest, Refusal> {
        let (parts, body) = request.into_parts();
        if parts.extensions.get::<Executing>().is_some() {
            return Err(Refusal::Nested);
        }
        let keys = parts.headers.get_all("idempotency-key").iter();
        let key = self.route.key(keys.map(HeaderValue::as_bytes))?;
        let owner = (self.owner)(&parts).ok_or(Refusal::OwnerUnknown)?;
        let length = parts.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
        self.route.check_length(length)?;
        let body = self.route.body_bounded(self.collect(body)).await?;
        let signed = match &key {
            Some(key) => Some(self.sign(owner, key.clone(), &parts, &body)?),
            None => None,
        };
        Ok(ReadRequest {
            parts,
            body,
            key,
            signed,
        })
    }

    async fn collect(&self, body: Body) -> Result<Bytes, Refusal> {
        let limit = self.route.max_body;
        body::to_bytes(body, limit).await.map_err(|error| {
            if is_too_long(&error) {
                Refusal::BodyTooLarge { limit }
            } else {
                Refusal::BodyBroken
            }
        })
    }

    fn sign(
        &self,
        owner: String,
        key: IdempotencyKey,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<SignedRequest, Refusal> {
        // Inside a nested router, the path lacks what the router is nested at.
        let uri = parts
            .extensions
            .get::<OriginalUri>()
            .map_or(&parts.uri, |original| &original.0);
        let mut signed_headers = Vec::new();
        for name in &self.route.signed_headers {
            let values = parts.headers.get_all(name).iter();
            signed_headers.extend(values.map(|value| (name.clone(), value.as_bytes().to_vec())));
        }
        self.route.sign(
            owner,
            key,
            &payonce_http::Request {
                method: parts.method.as_str(),
                path: uri.path(),
                query: uri.query(),
                content_type: parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes),
                is_encoded: parts.headers.contains_key(CONTENT_ENCODING),
                signed_headers,
                body,
            },
        )
    }

    async fn execute<S>(&self, mut inner: S, read: ReadRequest) -> Result<Response, S::Error>
    where
        S: Service<Request, Response = Response> + Send + 'static,
        S::Future: Send,
        S::Error: Send + 'static,
    {
        let ReadRequest {
            mut parts,
            body,
            key,
            signed,
        } = read;
        let route = self.route.clone();
        let handler = async move |slot: Slot| {
            parts.extensions.insert(Executing { slot, key });
            let answered = async {
                match inner
                    .call(Request::from_parts(parts, Body::from(body)))
                    .await
                {
                    Ok(response) => handled(&route, response).await,
                    Err(error) => Handled::Forgotten(Err(error)),
                }
            };
            route
                .bounded(answered)
                .await
                .unwrap_or_else(Handled::Refused)
        };
        match self.route.execute(signed, handler).await {
            Executed::Reply(reply) => Ok(respond(reply)),
            Executed::Forgotten(response) => response,
        }
    }
}

/// Collects an answer that is to be stored. One that is not goes on as it is.
async fn handled<E>(route: &Route, response: Response) -> Handled<Result<Response, E>> {
    if (route.ending)(response.status().as_u16()) == Ending::Forget {
        return Handled::Forgotten(Ok(response));
    }
    let (parts, body) = response.into_parts();
    let limit = route.max_answer;
    match body::to_bytes(body, limit).await {
        Ok(body) => Handled::Answered(HandlerAnswer {
            status: parts.status.as_u16(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect(),
            body,
        }),
        Err(error) if is_too_long(&error) => Handled::Refused(Refusal::AnswerTooLarge { limit }),
        Err(_) => Handled::Refused(Refusal::AnswerBroken),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<LengthLimitError>())
}
