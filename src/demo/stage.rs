//! The database, and the merchants of this run.

use anyhow::Context;
use chrono::{Datelike, Utc};
use serde_json::json;
use uuid::Uuid;

use super::client::Client;
use super::server::Server;
use crate::config::DatabaseArgs;
use crate::database;
use crate::merchants::Merchants;

/// Only merchants are created through this pool. The servers have their own.
const MAX_CONNECTIONS: u32 = 2;

/// The card that always succeeds.
pub(super) const GOOD_CARD: &str = "4242424242424242";

/// The card with insufficient funds.
pub(super) const EMPTY_CARD: &str = "4000000000009995";

/// Shared by all demonstrations.
pub(super) struct Stage {
    database: DatabaseArgs,
    merchants: Merchants,
    /// `demo-` and eight digits.
    run: String,
}

impl Stage {
    /// Opens the database and applies pending migrations, as a server would.
    pub(super) async fn build(database: DatabaseArgs) -> anyhow::Result<Self> {
        let settings = database.settings(MAX_CONNECTIONS);
        let pool = database::connect(&settings).await?;
        database::check_durability(&pool, settings.allow_unsafe).await?;
        database::migrate(&pool).await?;
        let digits = Uuid::new_v4().simple().to_string();
        Ok(Self {
            database,
            merchants: Merchants::new(pool),
            run: format!("demo-{}", digits.get(..8).unwrap_or(&digits)),
        })
    }

    pub(super) fn database(&self) -> &DatabaseArgs {
        &self.database
    }

    /// Creates a merchant and returns its client. Each `name` is used once per run.
    pub(super) async fn merchant(&self, server: &Server, name: &str) -> anyhow::Result<Client> {
        let id = format!("{}-{name}", self.run);
        let merchant = self
            .merchants
            .create(&id, &format!("Demonstration {name}"))
            .await
            .with_context(|| format!("merchant {id} cannot be made"))?;
        Client::new(server, merchant.merchant_id, merchant.api_key)
    }
}

/// The body of a card payment. It is always the same bytes.
pub(super) fn card_payment(amount: &str, card: &str) -> Vec<u8> {
    let body = json!({
        "amount": amount,
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "details": {
            "cardNumber": card,
            "cvv": "123",
            "expiryMonth": "12",
            "expiryYear": (Utc::now().year() + 3).to_string(),
            "cardHolderName": "Test User",
        }},
        "customer": {"id": "cus_1", "email": "test@example.com", "name": "Test User"},
    });
    body.to_string().into_bytes()
}
