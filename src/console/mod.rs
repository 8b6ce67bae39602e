//! The operator's console: pages at `/console` for those who run the service, made on the server, without a line of script.
//!
//! Off, and every path below `/console` unknown, until it is given a token. Whoever has the token sees all merchants'
//! payments; no page shows an API key, a card's number, a gateway's token or a stored answer's body.
//!
//! * `routes`: every route in one list. `security_headers`: the headers of every reply.
//! * `sign_in`, `session`, `operator`, `csrf`, `return_path`: who is let in, for how long, that a form came from our own page,
//!   and where they are led after signing in.
//! * `audit`: who did what, and when. What cannot be written there is not done.
//! * `overview`, `payments`, `keys`, `merchants_page`, `audit_page`, `help_page`: the pages. `layout`, `html`, `charts`, `links`,
//!   `assets`: what they are made of.
//! * `traffic`: what the overview's charts show.

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
pub use self::routes::routes;
use self::session::SessionKey;
use self::sign_in::Door;
use self::traffic::Traffic;
pub use self::traffic::count_traffic;
use crate::payments::Payments;
use crate::refused_reuses::RefusedReuses;

/// The console of one node. Cloning it is cheap.
#[derive(Clone)]
pub struct Console(Arc<Shared>);

struct Shared {
    payments: Payments,
    door: Door,
    sessions: SessionKey,
    traffic: Traffic,
}

impl Console {
    /// A console for whoever has `token`. From now on, refused reuses are noted.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(payments: Payments, token: &SecretString) -> Self {
        let pool = payments.engine().pool().clone();
        payments.note_refused_reuses(RefusedReuses::start(pool));
        Self(Arc::new(Shared {
            payments,
            door: Door::new(token),
            sessions: SessionKey::derived_from(token),
            traffic: Traffic::default(),
        }))
    }

    /// Saves what is counted for the charts, until it is dropped.
    pub async fn run(self) {
        traffic::run(self).await;
    }

    /// Saves what was counted since. Call it when no further requests come.
    pub async fn finish(&self) {
        traffic::finish(self).await;
    }

    fn payments(&self) -> &Payments {
        &self.0.payments
    }

    fn pool(&self) -> &PgPool {
        self.0.payments.engine().pool()
    }

    /// Who this node is, in the tables.
    fn node(&self) -> Uuid {
        self.0.payments.engine().owner()
    }

    fn door(&self) -> &Door {
        &self.0.door
    }

    fn sessions(&self) -> &SessionKey {
        &self.0.sessions
    }

    fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }

    /// Runs `work` where the pool's connections live, in a task that a browser which goes away does not stop.
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
