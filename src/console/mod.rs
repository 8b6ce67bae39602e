//! The operators' console: pages at `/console`, rendered on the server, without any script.
//!
//! It is off until it is given a token; until then every path below `/console` is unknown. The token gives access to the payments of
//! all merchants. No page shows an API key, a card number, a gateway token or the body of a stored answer.
//!
//! * `routes`: every route in one list. `security_headers`: the headers of every reply.
//! * `sign_in`, `session`, `operator`, `csrf`, `return_path`: who may enter and for how long, that a form came from our own page, and
//!   which page follows the sign-in.
//! * `audit`: who did what, and when. An action that cannot be recorded there is not taken.
//! * `overview`, `payments`, `keys`, `merchants_page`, `audit_page`, `help_page`: the pages. `layout`, `html`, `charts`, `links`,
//!   `assets`: the parts of pages.
//! * `traffic`: the figures of the overview's charts.

mod assets;
mod audit;
mod audit_page;
mod charts;
mod csrf;
mod error;
mod help_page;
mod html;
mod keys;
mod layout;
mod links;
mod merchants_page;
mod metrics;
mod operator;
mod overview;
mod payments;
mod return_path;
mod routes;
mod security_headers;
mod session;
mod sign_in;
mod store;
mod traffic;

use std::future::Future;
use std::sync::Arc;

use secrecy::SecretString;
use sqlx::PgPool;
use uuid::Uuid;

use self::error::ConsoleError;
pub use self::metrics::describe_metrics;
pub use self::routes::routes;
use self::session::SessionKey;
use self::sign_in::Door;
use self::traffic::Traffic;
pub use self::traffic::count_traffic;
use crate::merchants::Cell;
use crate::mismatches::Mismatches;
use crate::payments::Payments;

/// The console of one node. It is cheap to clone.
#[derive(Clone)]
pub struct Console(Arc<Shared>);

struct Shared {
    payments: Payments,
    door: Door,
    sessions: SessionKey,
    traffic: Traffic,
    cell: Option<Cell>,
}

impl Console {
    /// Starts a console that operators sign in to with `token`. Its pages say which cell they are of. From now on, mismatches are noted.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn start(payments: Payments, token: &SecretString, cell: Option<Cell>) -> Self {
        let pool = payments.engine().pool().clone();
        payments.note_mismatches(Mismatches::start(pool));
        Self(Arc::new(Shared {
            payments,
            door: Door::new(token),
            sessions: SessionKey::derived_from(token),
            traffic: Traffic::default(),
            cell,
        }))
    }

    /// Saves the counts for the charts at intervals, until it is dropped.
    pub async fn run(self) {
        traffic::run(self).await;
    }

    /// Saves the last counts. Call it after the last request.
    pub async fn finish(&self) {
        traffic::finish(self).await;
    }

    fn payments(&self) -> &Payments {
        &self.0.payments
    }

    fn pool(&self) -> &PgPool {
        self.0.payments.engine().pool()
    }

    /// The name of this node in the tables.
    fn node(&self) -> Uuid {
        self.0.payments.engine().owner()
    }

    fn door(&self) -> &Door {
        &self.0.door
    }

    fn sessions(&self) -> &SessionKey {
        &self.0.sessions
    }

    fn cell(&self) -> Option<Cell> {
        self.0.cell
    }

    fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }

    /// Runs `work` in a task of the engine's runtime, where the pool's connections live. A browser that disconnects does not stop it.
    async fn ask<T, F, Fut>(&self, work: F) -> Result<T, ConsoleError>
    where
        T: Send + 'static,
        F: FnOnce(Self) -> Fut,
        Fut: Future<Output = sqlx::Result<T>> + Send + 'static,
    {
        let work = work(self.clone());
        Ok(self.payments().engine().run(work).await??)
    }
}
