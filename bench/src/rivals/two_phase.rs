//! The same user, with a gateway to call. Money moves outside of the database, so one transaction is not enough: were it rolled back
//! after the call, nobody would know of the charge. A first transaction inserts the key and the payment, the gateway is called while no
//! transaction is open, and a second one locks the key, updates both rows and stores the answer.
//!
//! As fair as [`super::reference`], whose validation, statements' style and answers it shares. It does less than payonce: no
//! authentication, no lease and no recovery of what a crash leaves between the two transactions, no metrics.

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::reference::{
    MERCHANT, NewPayment, OPERATION, ReferenceArgs, Stored, Valid, accept, answer, insert_key,
    insert_payment, internal_error, replay, respond, save_answer, serve,
};

/// Serves until it is told to stop.
pub fn serve_two_phase(args: ReferenceArgs) -> anyhow::Result<()> {
    serve(args, create)
}

async fn create(pool: Data<PgPool>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let accepted = match accept(&request, &body) {
        Ok(accepted) => accepted,
        Err(refusal) => return HttpResponse::build(refusal).finish(),
    };
    let (key, fingerprint) = (accepted.key, &accepted.fingerprint[..]);
    match pay(&pool, key, fingerprint, &accepted.payment, &accepted.valid).await {
        Ok(response) => response,
        Err(error) => internal_error(&error),
    }
}

async fn pay(
    pool: &PgPool,
    key: &str,
    fingerprint: &[u8],
    payment: &NewPayment,
    valid: &Valid,
) -> sqlx::Result<HttpResponse> {
    let mut claim = pool.begin().await?;
    if !insert_key(&mut claim, key, fingerprint).await? {
        return replay(&mut claim, key, fingerprint).await;
    }
    let id = format!("pay_{}", Uuid::now_v7());
    insert_payment(&mut claim, &id, key, None, payment, valid).await?;
    claim.commit().await?;

    let gateway_transaction_id = charge(&id).await;

    let stored = Stored {
        status: 201,
        location: format!("/v1/payments/{id}"),
        body: answer(&id, key, &gateway_transaction_id, payment, valid)?,
    };
    let mut settle = pool.begin().await?;
    if !lock_open_key(&mut settle, key).await? {
        return replay(&mut settle, key, fingerprint).await;
    }
    settle_payment(&mut settle, &id, &gateway_transaction_id).await?;
    save_answer(&mut settle, key, &stored).await?;
    settle.commit().await?;
    Ok(respond(key, stored, false))
}

/// The simulated gateway: it approves at once, as payonce's does with a latency of zero.
async fn charge(id: &str) -> String {
    format!("sim_{id}")
}

/// False: somebody else has settled it.
async fn lock_open_key(connection: &mut PgConnection, key: &str) -> sqlx::Result<bool> {
    let state: String = sqlx::query_scalar(
        "select state from idempotency_keys
        where merchant_id = $1 and operation = $2 and key = $3
        for update",
    )
    .bind(MERCHANT)
    .bind(OPERATION)
    .bind(key)
    .fetch_one(connection)
    .await?;
    Ok(state == "PROCESSING")
}

async fn settle_payment(
    connection: &mut PgConnection,
    id: &str,
    gateway_transaction_id: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "update payments
        set state = 'SUCCESS', gateway_transaction_id = $3, updated_at = now()
        where merchant_id = $1 and payment_id = $2",
    )
    .bind(MERCHANT)
    .bind(id)
    .bind(gateway_transaction_id)
    .execute(connection)
    .await
    .map(drop)
}
