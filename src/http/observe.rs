//! Request ids, one log line for each request, and its metrics.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use metrics::{Counter, Histogram};
use tokio::sync::Notify;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::body_guard::GuardedBody;
use super::key_header::KEY_HEADER;
use super::payload_hold::LentPayload;
use crate::telemetry;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Counts the requests in flight. A stopping service waits for them.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Count>);

#[derive(Default)]
struct Count {
    requests: AtomicUsize,
    none_left: Notify,
}

impl InFlight {
    /// Waits until there are none, for at most `patience`. Returns false if some are left.
    pub async fn drained(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, async {
            loop {
                let none_left = self.0.none_left.notified();
                if self.0.requests.load(Ordering::SeqCst) == 0 {
                    return;
                }
                none_left.await;
            }
        })
        .await
        .is_ok()
    }

    fn enter(&self) -> Served {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        Served(Arc::clone(&self.0))
    }
}

struct Served(Arc<Count>);

impl Drop for Served {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

/// Middleware around every request.
pub async fn observe(
    in_flight: web::Data<InFlight>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let served = in_flight.enter();
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let key = request.headers().get(KEY_HEADER).cloned();
    let method = request.method().clone();
    let span = request_span(request.headers(), &request_id);
    let mut request = request;
    let body = LentPayload::of(&mut request);
    let response = next.call(request).instrument(span.clone()).await?;
    // A request is in flight until its answer has been handed to the connection, not only until the answer is known.
    let mut response =
        response.map_body(|_, answer| GuardedBody::new(answer, (served, body.hold())));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    // Only the first is echoed. A request with two keys is refused, and its reply says so.
    if let Some(key) = key.filter(|_| method == actix_web::http::Method::POST) {
        headers.insert(HeaderName::from_static(KEY_HEADER), key);
    }
    let route = response
        .request()
        .match_pattern()
        .unwrap_or_else(|| "unmatched".to_owned());
    let status = response.status().as_u16();
    let took = started.elapsed();
    let replayed = response
        .headers()
        .get("idempotent-replayed")
        .and_then(|value| value.to_str().ok());
    span.in_scope(|| {
        tracing::info!(%method, route, status, replayed, duration_ms = took.as_secs_f64() * 1e3, "served");
    });
    let method = method_label(&method);
    telemetry::describe(&span, method, &route, status);
    count(method, route, status, took);
    Ok(response)
}

/// The two metrics of one method, route and status.
struct Counted {
    requests: Counter,
    seconds: Histogram,
}

impl Counted {
    fn of(method: &'static str, route: &str, status: u16) -> Self {
        let (route, status) = (route.to_owned(), status.to_string());
        Self {
            requests: metrics::counter!("payonce_http_requests_total",
                "method" => method, "route" => route.clone(), "status" => status.clone()),
            seconds: metrics::histogram!("payonce_http_request_seconds",
                "method" => method, "route" => route, "status" => status),
        }
    }
}

/// Looking up a metric costs more than counting, so each worker caches the ones that it has used. Their number is bounded by the
/// number of routes times their statuses.
fn count(method: &'static str, route: String, status: u16, took: Duration) {
    thread_local! {
        static COUNTED: RefCell<HashMap<(&'static str, String, u16), Counted>> = RefCell::default();
    }
    COUNTED.with_borrow_mut(|counted| {
        let counted = counted
            .entry((method, route, status))
            .or_insert_with_key(|(method, route, status)| Counted::of(method, route, *status));
        counted.requests.increment(1);
        counted.seconds.record(took.as_secs_f64());
    });
}

/// The span of a request, in the log and in its trace. Its level is error, so that log lines of any level name their request.
fn request_span(headers: &HeaderMap, request_id: &HeaderValue) -> Span {
    let span = tracing::error_span!(
        target: telemetry::REQUESTS,
        "request",
        request_id = request_id.to_str().unwrap_or_default(),
        merchant_id = Empty,
        idempotency = Empty,
        otel.kind = Empty,
    );
    telemetry::follow(&span, |name| {
        headers.get(name)?.to_str().ok().map(str::to_owned)
    });
    span
}

/// Clients can send any method; the metric's label has few values.
fn method_label(method: &actix_web::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Returns the client's own id if it is 1 to 128 letters, digits and `-_.:`, or else a new id.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_sane = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
    };
    match headers.get(REQUEST_ID).filter(|value| is_sane(value)) {
        Some(value) => value.clone(),
        // A UUID is visible ASCII, so it is a valid header value.
        None => HeaderValue::try_from(Uuid::now_v7().to_string())
            .unwrap_or(HeaderValue::from_static("-")),
    }
}
