//! `/v1/idempotency-keys/{operation}/{key}`: a merchant reads the record of its own key.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::SHOWN_DIGITS;
use super::request::Caller;
use super::services::Services;
use crate::idempotency::records::{Inspector, KeyRecord};
use crate::idempotency::{IdempotencyKey, ScopedKey};
use crate::payments::{Operation, PaymentError};
use crate::problem::Problem;

/// The record of a key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = IdempotencyKey)]
pub(super) struct RecordView<'a> {
    /// The operation that it was used for.
    #[schema(examples("create_payment"))]
    operation: &'a str,
    /// The bare key.
    #[schema(examples("order-1001"))]
    key: &'a str,
    /// `PROCESSING`: a request with it is in progress. `COMPLETED` and `FAILED` are final.
    #[schema(pattern = "^(PROCESSING|COMPLETED|FAILED)$", examples("COMPLETED"))]
    state: &'static str,
    /// The first 16 hexadecimal digits of the fingerprint of its first request.
    #[schema(pattern = "^[0-9a-f]{16}$", examples("9f2c1b6d0e8a4753"))]
    fingerprint: &'a str,
    /// Number of times that its work was begun: more than one after a crash, or if the gateway's answer came late.
    #[schema(minimum = 1, examples(1))]
    attempts: i32,
    /// The stored answer's HTTP status, once final.
    #[schema(required = true, examples(201))]
    response_status: Option<u16>,
    /// The id of the payment or refund.
    #[schema(required = true, examples("pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11"))]
    resource_id: Option<&'a str>,
    /// When it was first used, RFC 3339 in UTC.
    #[schema(examples("2026-03-01T12:00:00.123456Z"))]
    created_at: DateTime<Utc>,
    /// When it became final, RFC 3339 in UTC.
    #[schema(required = true, examples("2026-03-01T12:00:01.123456Z"))]
    completed_at: Option<DateTime<Utc>>,
    /// When it expires, RFC 3339 in UTC.
    #[schema(examples("2026-03-02T12:00:00.123456Z"))]
    expires_at: DateTime<Utc>,
}

impl<'a> From<&'a KeyRecord> for RecordView<'a> {
    fn from(record: &'a KeyRecord) -> Self {
        Self {
            operation: &record.scope.operation,
            key: record.scope.key.as_str(),
            state: record.state.as_str(),
            fingerprint: record.fingerprint.get(..SHOWN_DIGITS).unwrap_or_default(),
            attempts: record.attempt,
            response_status: record.response_status,
            resource_id: record.resource_id.as_deref(),
            created_at: record.created_at,
            completed_at: record.completed_at,
            expires_at: record.expires_at,
        }
    }
}

/// Read the record of one of your keys
#[utoipa::path(
    get, path = "/v1/idempotency-keys/{operation}/{key}", operation_id = "get_idempotency_key", tag = "idempotency-keys",
    security(("apiKey" = [])),
    params(
        ("operation" = String, Path, example = "create_payment",
            description = "`create_payment`, `capture_payment`, `cancel_payment` or `refund_payment`"),
        ("key" = String, Path, example = "order-1001", description = "The bare key, percent-encoded"),
    ),
    responses((status = 200, description = "What is remembered of it", body = RecordView<'_>)),
)]
pub(super) async fn get(
    services: Data<Services>,
    path: Path<(String, String)>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let not_found = || PaymentError::NotFound("idempotency key");
    let (operation, key) = path.into_inner();
    let operation = Operation::from_name(&operation).ok_or_else(not_found)?;
    let key = IdempotencyKey::new(&key).map_err(|_| not_found())?;
    let scope = ScopedKey::new(&*caller.merchant_id, operation.as_str(), key);
    let inspector = Inspector::new(services.pool.clone());
    let find = async move { inspector.find(&scope).await };
    let record = services.read(&caller.merchant_id, find).await??;
    let record = record.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(RecordView::from(&record)))
}
