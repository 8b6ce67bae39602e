//! The inspector reads the engine's records from outside of a service. It needs no secret and changes nothing.

use sqlx::PgPool;

use super::error::IdempotencyError;
use super::key::ScopedKey;
use super::record::{KeyRecord, KeyState};
use super::store;
use crate::database::{self, Bounded};

/// Reads records. Cloning it is cheap.
///
/// ```no_run
/// # async fn look(pool: sqlx::PgPool, key: payonce_engine::ScopedKey) -> Result<(), payonce_engine::IdempotencyError> {
/// use payonce_engine::records::Inspector;
///
/// if let Some(record) = Inspector::new(pool).find(&key).await? {
///     println!("{:?} after {} attempts", record.state, record.attempt);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Inspector {
    pool: PgPool,
}

impl Inspector {
    /// Creates an inspector of a database that has this crate's migrations.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Returns the key's record. An expired key may still have one, until the clean-up deletes it.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn find(&self, key: &ScopedKey) -> Result<Option<KeyRecord>, IdempotencyError> {
        let mut connection = database::acquire(&self.pool).await?;
        Ok(store::find_record(&mut connection, key).bounded().await?)
    }

    /// At most `limit` records, in one state or in any, those that expire last first.
    ///
    /// ```no_run
    /// # async fn look(pool: sqlx::PgPool) -> Result<(), payonce_engine::IdempotencyError> {
    /// use payonce_engine::records::{Inspector, KeyState};
    ///
    /// for record in Inspector::new(pool).list(Some(KeyState::Failed), 20).await? {
    ///     println!("{} {} {:?}", record.created_at, record.scope, record.response_status);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn list(
        &self,
        state: Option<KeyState>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, IdempotencyError> {
        let mut connection = database::acquire(&self.pool).await?;
        Ok(store::list_records(&mut connection, state, limit.into())
            .bounded()
            .await?)
    }

    /// At most `limit` records in `PROCESSING` whose lease has ended, oldest first.
    ///
    /// ```no_run
    /// # async fn look(pool: sqlx::PgPool) -> Result<(), payonce_engine::IdempotencyError> {
    /// use payonce_engine::records::Inspector;
    ///
    /// // The recovery takes them over within seconds. What stays here needs an operator.
    /// for record in Inspector::new(pool).list_stuck(20).await? {
    ///     println!("{} for {:?}, attempt {}", record.scope, record.resource_id, record.attempt);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn list_stuck(&self, limit: u32) -> Result<Vec<KeyRecord>, IdempotencyError> {
        let mut connection = database::acquire(&self.pool).await?;
        Ok(store::list_stuck_records(&mut connection, limit.into())
            .bounded()
            .await?)
    }
}
