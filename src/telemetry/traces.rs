//! Traces of each request through claim, gateway call and settle, sent to an OpenTelemetry collector over OTLP/HTTP.
//!
//! The span of a request has the target [`REQUESTS`], and is used by the log, too. The phases of a request have spans with the target
//! [`PHASES`]. These are measured but never entered, so that log lines belong to their request. Without
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` nothing is started and no such span is created.

use std::collections::HashMap;
use std::env;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Status, TraceContextExt, TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// The target of the spans of requests.
pub const REQUESTS: &str = "payonce::requests";

/// The target of the spans of their phases, which `phase!` creates.
const PHASES: &str = "payonce::phases";

/// Whether traces are exported.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// OpenTelemetry's own variables, defined by its specification. The exporter reads further ones by itself.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];

/// The collector's address is not valid, or another `OTEL_…` variable is wrong. The message names it.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported with the OTEL_EXPORTER_OTLP_… settings")]
pub struct TracesError(#[from] ExporterBuildError);

/// The export of traces. When it is dropped, the remaining spans are sent.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the export if the environment names a collector.
    pub fn from_env() -> Result<Option<Self>, TracesError> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        if !ENDPOINTS.into_iter().any(is_set) {
            return Ok(None);
        }
        // If another part of the process has chosen a provider already, that one is used.
        drop(rustls::crypto::ring::default_provider().install_default());
        let exporter = SpanExporter::builder().with_http().build()?;
        // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence.
        let name = env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "payonce".to_owned());
        let resource = Resource::builder().with_service_name(name).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        IS_ON.store(true, Ordering::Relaxed);
        Ok(Some(Self(provider)))
    }

    /// The layer that turns spans into traces.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let traced = Targets::new()
            .with_target(REQUESTS, LevelFilter::TRACE)
            .with_target(PHASES, LevelFilter::TRACE);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("payonce"))
            // tracing itself knows the parents, and OpenTelemetry's own current span and code locations are not used.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_filter(traced)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }
}

/// Adds to a request's span what is only known at its end, under the names of OpenTelemetry's semantic conventions for HTTP. The log
/// has these fields in its own line, so they are not logged a second time.
pub fn describe(span: &Span, method: &'static str, route: &str, status: u16) {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    span.context()
        .span()
        .update_name(format!("{method} {route}"));
    span.set_attribute("http.request.method", method);
    span.set_attribute("http.route", route.to_owned());
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// The headers that carry a client's trace (W3C Trace Context).
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// Makes a request's span part of its client's trace. `header` reads a header of the request.
pub fn follow(span: &Span, header: impl Fn(&str) -> Option<String>) {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    span.record("otel.kind", "server");
    let sent = TRACE_HEADERS
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), header(name)?)));
    let parent = TraceContextPropagator::new().extract(&sent.collect::<HashMap<_, _>>());
    if let Err(error) = span.set_parent(parent) {
        tracing::debug!(%error, "a trace has no parent");
    }
}
