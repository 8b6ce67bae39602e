//! One transaction without a key.

use std::future::Future;

use tokio::time::Instant;

use super::{Engine, work_error};
use crate::database::{self, Bounded, may_have_committed};
use crate::error::IdempotencyError;
use crate::transaction::{Transaction, lend};

impl Engine {
    /// Runs `work` in one transaction without a key: for a request that may come without one. Its writes are committed if it
    /// returns `Ok`, and undone if it returns `Err`. As with [`Engine::execute`], dropping this future stops nothing.
    ///
    /// ```no_run
    /// # async fn order(engine: payonce_engine::Engine) -> Result<(), payonce_engine::IdempotencyError> {
    /// let id: i64 = engine
    ///     .transact(async |mut tx| {
    ///         sqlx::query_scalar("insert into orders (sku) values ('tea') returning order_id").fetch_one(&mut *tx).await
    ///     })
    ///     .await?;
    /// # let _ = id;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The work's, or the database's, also if the work ignored the failure of one of its statements.
    /// [`IdempotencyError::OutcomeUnknown`] if the answer to the commit was lost: without a key its outcome cannot be read back.
    pub async fn transact<T, E, F, Fut>(&self, work: F) -> Result<T, IdempotencyError>
    where
        T: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Transaction) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let engine = self.clone();
        self.run(async move { transact_once(&engine, work).await })
            .await?
    }
}

async fn transact_once<T, E, F, Fut>(engine: &Engine, work: F) -> Result<T, IdempotencyError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce(Transaction) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let transaction = database::begin(&engine.0.pool).await?;
    let (mut transaction, done) = lend(transaction, work).await?;
    match done.map_err(|error| work_error(error.into())) {
        Ok(done) => {
            // PostgreSQL answers the commit of a transaction in which a statement failed by a rollback, and by no error.
            sqlx::raw_sql("select 1")
                .execute(&mut *transaction)
                .bounded()
                .await?;
            let begun = Instant::now();
            match transaction.commit().await {
                Ok(()) => {}
                Err(error) if may_have_committed(&error) => {
                    return Err(IdempotencyError::OutcomeUnknown(Box::new(error.into())));
                }
                Err(error) => return Err(error.into()),
            }
            engine.make_certain(begun).await?;
            Ok(done)
        }
        Err(error) => {
            transaction.rollback().await?;
            Err(error)
        }
    }
}
