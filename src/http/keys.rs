//! `/v1/idempotency-keys/{operation}/{key}`: a merchant looks at the record of its own key.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Services;
use super::problem::SHOWN_DIGITS;
use super::request::Caller;
use crate::idempotency::{IdempotencyKey, Inspector, KeyRecord, ScopedKey};
use crate::payments::{Operation, PaymentError};
use crate::problem::Problem;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordView<'a> {
    operation: &'a str,
    key: &'a str,
    state: &'static str,
    fingerprint: &'a str,
    attempts: i32,
    response_status: Option<u16>,
    resource_id: Option<&'a str>,
    created_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
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
