//! Endpoints for operators: liveness, readiness, metrics, and explanations of problems.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Serialize;
use utoipa::ToSchema;

use super::pages;
use super::services::Services;
use crate::database;
use crate::problem::{Code, Problem};

/// Maximum time that a probe waits for the database.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The answer of a process that is alive.
#[derive(Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    #[schema(examples("ok"))]
    status: &'static str,
}

/// Is the process alive?
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "service",
    responses((status = 200, description = "Yes", body = Health)),
)]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

/// Whether the service can work.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// `ok`, or `unavailable`.
    #[schema(pattern = "^(ok|unavailable)$", examples("ok"))]
    status: &'static str,
    /// `ok`, or `unreachable` if it does not answer in time or accepts no writes.
    #[schema(pattern = "^(ok|unreachable)$", examples("ok"))]
    database: &'static str,
    /// The gateway for new payments: `ok`, `circuit-open` while it is not called because it cannot be reached, or `misconfigured`
    /// while it refuses this service; the reason is in the log. It does not affect the status: without the gateway, replays are
    /// still answered.
    #[schema(pattern = "^(ok|circuit-open|misconfigured)$", examples("ok"))]
    gateway: &'static str,
}

/// Can the service work?
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "service",
    responses(
        (status = 200, description = "Yes", body = Readiness),
        (status = 503, description = "No: its database cannot be reached, does not answer, or accepts no writes", body = Readiness),
    ),
)]
pub(super) async fn readyz(services: Data<Services>) -> HttpResponse {
    let pool = services.pool.clone();
    // The pool only returns a connection that answers and whose server accepts writes.
    let probe = services.payments.engine().run(async move {
        tokio::time::timeout(PROBE_TIMEOUT, database::acquire(&pool))
            .await
            .is_ok_and(|connection| connection.is_ok())
    });
    // The gateway's state is shown but does not affect readiness: without it this node can still replay.
    let gateway = services.payments.gateway_status().as_str();
    if probe.await.unwrap_or(false) && !services.payments.is_stalled() {
        HttpResponse::Ok().json(Readiness {
            status: "ok",
            database: "ok",
            gateway,
        })
    } else {
        HttpResponse::ServiceUnavailable()
            .insert_header(("retry-after", 1))
            .json(Readiness {
                status: "unavailable",
                database: "unreachable",
                gateway,
            })
    }
}

/// Metrics, for Prometheus
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "service",
    responses((status = 200, description = "Prometheus's text format", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(services: Data<Services>) -> HttpResponse {
    let engine = services.payments.engine().clone();
    let counting = services
        .payments
        .engine()
        .run(async move { tokio::time::timeout(PROBE_TIMEOUT, engine.count_unsettled()).await });
    let counted = counting.await;
    let is_reachable = matches!(counted, Ok(Ok(Ok(_))));
    metrics::gauge!("payonce_database_reachable").set(u8::from(is_reachable));
    // Without the database the service still shows its own counts.
    if let Ok(Ok(Ok((count, oldest)))) = counted {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        metrics::gauge!("payonce_keys_processing").set(count);
        metrics::gauge!("payonce_keys_oldest_processing_seconds").set(oldest.as_secs_f64());
    }
    // After the query, because in a service that has done nothing yet the query opens the first connection.
    let pool = &services.pool;
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
    metrics::gauge!("payonce_database_connections").set(pool.size());
    metrics::gauge!("payonce_database_connections_idle").set(idle);
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(services.metrics.render())
}

/// Explain a problem
#[utoipa::path(
    get, path = "/problems/{slug}", operation_id = "explain_problem", tag = "service",
    params(("slug" = String, Path, example = "payment-declined", description = "The problem's `code`")),
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html")),
)]
pub(super) async fn explain_problem(slug: Path<String>) -> Result<HttpResponse, Problem> {
    let code = Code::from_slug(&slug)
        .ok_or_else(|| Problem::new(Code::NotFound, "there is no such problem"))?;
    Ok(pages::problem(code))
}

/// List the problems
#[utoipa::path(
    get, path = "/problems", operation_id = "list_problems", tag = "service",
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html")),
)]
pub(super) async fn list_problems() -> HttpResponse {
    pages::problems()
}
