//! The checks that every request passes before its handler, always in the same order: the API key, whether its merchant is served
//! here, the rate limit, `Accept`, the query parameters, the idempotency key, the body.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use actix_web::error::InternalError;
use actix_web::http::header::{self, Accept, Header, HeaderMap, Quality};
use actix_web::web::{Bytes, BytesMut, Data, Path, Payload};
use actix_web::{FromRequest, HttpRequest, ResponseError, dev};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;

use super::key_header::KeyHeader;
use super::problem::{not_served_here, rate_limited};
use super::query::Parameters;
use super::services::Services;
use crate::idempotency::{IdempotencyKey, Wait};
use crate::merchants::KnownMerchant;
use crate::problem::{Code, Problem};

/// Maximum size of a body, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// An authenticated merchant, whose request has no query parameters.
pub(super) struct Caller {
    pub(super) merchant_id: Arc<str>,
}

/// An authenticated merchant, and the query parameters of the request.
pub(super) struct AskingCaller {
    pub(super) merchant_id: Arc<str>,
    pub(super) parameters: Parameters,
}

impl FromRequest for AskingCaller {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let Caller { merchant_id } = authenticate(&request).await?;
            let parameters = Parameters::of(&request);
            Ok(Self {
                merchant_id,
                parameters,
            })
        })
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let caller = authenticate(&request).await?;
            Parameters::of(&request).finish()?;
            Ok(caller)
        })
    }
}

async fn authenticate(request: &HttpRequest) -> Result<Caller, Problem> {
    let unauthorized = || Problem::new(Code::Unauthorized, Code::Unauthorized.title());
    let services = services(request)?;
    let api_key = bearer(request.headers()).ok_or_else(unauthorized)?;
    let found = match services.authenticator.recall(api_key).await {
        Some(remembered) => remembered,
        None => Box::pin(look_up(services, api_key.to_owned())).await?,
    };
    let KnownMerchant {
        id: merchant_id,
        moving,
    } = found.ok_or_else(unauthorized)?;
    tracing::Span::current().record("merchant_id", &*merchant_id);
    if let Some(moving) = moving.filter(|moving| moving.refuses(request.method().is_safe())) {
        return Err(not_served_here(&moving));
    }
    if let Some(limiter) = &services.rate_limiter {
        limiter.check(&merchant_id).map_err(rate_limited)?;
    }
    check_accept(request)?;
    Ok(Caller { merchant_id })
}

/// Finds the merchant of an API key, in a task of the engine's runtime, where the pool's connections live.
async fn look_up(services: &Services, api_key: String) -> Result<Option<KnownMerchant>, Problem> {
    let authenticator = services.authenticator.clone();
    let asked = async move { authenticator.authenticate(&api_key).await };
    let found = services.payments.engine().run(asked).await?;
    Ok(found.map_err(crate::idempotency::IdempotencyError::Database)?)
}

/// The id in the path. PostgreSQL's texts cannot contain NUL, so an id that does is not found.
pub(super) struct PathId(pub(super) String);

impl FromRequest for PathId {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let id = Path::<String>::from_request(request, payload).into_inner();
        ready(match id {
            Ok(id) if !id.contains('\0') => Ok(Self(id.into_inner())),
            _ => Err(Problem::new(Code::NotFound, Code::NotFound.title())),
        })
    }
}

fn services(request: &HttpRequest) -> Result<&Data<Services>, Problem> {
    request
        .app_data::<Data<Services>>()
        .ok_or_else(|| Problem::new(Code::Internal, Code::Internal.title()))
}

/// RFC 6750, 2.1. The scheme's case makes no difference (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
        .then_some(token)
}

/// RFC 9110, 12.5.1, for a service that answers only in JSON.
fn check_accept(request: &HttpRequest) -> Result<(), Problem> {
    const READABLE: [&str; 4] = [
        "*/*",
        "application/*",
        "application/json",
        "application/problem+json",
    ];
    let accepts_json = match Accept::parse(request) {
        Ok(ranges) => ranges.iter().any(|range| {
            range.quality != Quality::ZERO && READABLE.contains(&range.item.essence_str())
        }),
        // A value that is not text says nothing.
        Err(_) => true,
    };
    if accepts_json || !request.headers().contains_key(header::ACCEPT) {
        return Ok(());
    }
    Err(Problem::new(
        Code::NotAcceptable,
        Code::NotAcceptable.title(),
    ))
}

/// A POST request with its merchant, key, preference and body.
pub(super) struct Keyed {
    pub(super) merchant_id: Arc<str>,
    pub(super) key: IdempotencyKey,
    pub(super) wait: Wait,
    pub(super) body: Bytes,
}

impl FromRequest for Keyed {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let request = request.clone();
        let payload = Payload::from_request(&request, payload).into_inner();
        Box::pin(async move {
            let Caller { merchant_id } = authenticate(&request).await?;
            Parameters::of(&request).finish()?;
            let KeyHeader(key) = KeyHeader::read(request.headers())?;
            let payload = payload
                .map_err(|_| Problem::new(Code::MalformedJson, "the body cannot be read"))?;
            check_content_encoding(request.headers())?;
            let patience = services(&request)?.body_timeout;
            let body = tokio::time::timeout(patience, read_body(&request, payload));
            let body = body.await.map_err(|_| too_slow(patience))??;
            let wait = preferred_wait(request.headers());
            Ok(Self {
                merchant_id,
                key,
                wait,
                body,
            })
        })
    }
}

fn too_slow(patience: Duration) -> Problem {
    let detail = format!("the body was not there after {patience:?}");
    Problem::new(Code::RequestTimeout, detail)
}

async fn read_body(request: &HttpRequest, mut payload: Payload) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::PayloadTooLarge, Code::PayloadTooLarge.title());
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some() && !is_json(content_type) {
        return Err(unsupported_media_type());
    }
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::MalformedJson, "the body was cut off"))?;
        if body.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    if content_type.is_none() && !body.is_empty() {
        return Err(unsupported_media_type());
    }
    Ok(body.freeze())
}

/// Refuses a compressed body. The answer says which coding is accepted (RFC 9110, 15.5.16).
fn check_content_encoding(headers: &HeaderMap) -> Result<(), actix_web::Error> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING);
    if codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let detail = "the body must not be compressed: send it without Content-Encoding";
    let problem = Problem::new(Code::UnsupportedMediaType, detail);
    let mut response = problem.error_response();
    let identity = header::HeaderValue::from_static("identity");
    response
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, identity);
    Err(InternalError::from_response(problem, response).into())
}

fn unsupported_media_type() -> Problem {
    Problem::new(
        Code::UnsupportedMediaType,
        Code::UnsupportedMediaType.title(),
    )
}

/// `application/json`, with or without parameters.
fn is_json(content_type: Option<&header::HeaderValue>) -> bool {
    content_type
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Parses `Prefer: wait=N`, in seconds (RFC 7240, 4.3). A preference that cannot be parsed is ignored, as that RFC requires.
fn preferred_wait(headers: &HeaderMap) -> Wait {
    headers
        .get_all("prefer")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map_or(Wait::Configured, |seconds| {
            Wait::AtMost(Duration::from_secs(seconds))
        })
}
