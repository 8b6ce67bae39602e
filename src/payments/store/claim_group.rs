//! Claims of a group.

use sqlx::PgConnection;
use sqlx::error::DatabaseError;

use super::claim::{ClaimTerms, Claimed, PaymentClaim, insert_claims};
use super::of_merchant::claim_payments_of;

/// Claims keys and inserts their payments, in one statement that commits by itself. The claims are sorted by their keys, and no key is
/// given twice. The results have the claims' order. `None` stands for a key that is in use, or whose answer has expired. Beside
/// synchronous standbys no answer is found here, because a visible row need not be durable there.
///
/// A key without a payment is not of a payment: another part of an embedding service has used it. A group with such a key is not
/// claimed, and the error asks for its claims one by one. Then the key is replaced if it has expired.
pub(in crate::payments) async fn claim_payments(
    connection: &mut PgConnection,
    terms: &ClaimTerms,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<Option<Claimed>>> {
    match (insert_claims(connection, terms, claims).await, claims) {
        (Err(error), [claim]) if is_unique_violation(&error) => {
            let merchant_id = &claim.key.scope.merchant_id;
            claim_payments_of(connection, merchant_id, terms, claims).await
        }
        (results, _) => results,
    }
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(DatabaseError::is_unique_violation)
}
