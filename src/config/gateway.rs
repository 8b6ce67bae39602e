//! Which gateway moves the money, and how it is reached.

use std::time::Duration;

use clap::Args;
use secrecy::SecretString;

use super::value::{duration, header_secret, http_url, positive_duration};
use crate::settings::{GatewayKind, GatewaySettings, StripeSettings};

/// Stripe is chosen, and its key is missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--stripe-secret-key (PAYONCE_STRIPE_SECRET_KEY) is required with \
     --gateway (PAYONCE_GATEWAY) stripe"
)]
pub struct NoStripeSecretKey;

/// The gateways' settings.
#[derive(Clone, Debug, Args)]
pub struct GatewayArgs {
    /// The gateway for new payments. Existing payments stay with the gateway that they started with.
    #[arg(long, env = "PAYONCE_GATEWAY", value_enum, default_value_t = GatewayKind::Simulated)]
    pub gateway: GatewayKind,
    /// Maximum time that a client's request waits for the gateway.
    #[arg(
        long,
        env = "PAYONCE_GATEWAY_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s"
    )]
    #[arg(value_parser = positive_duration)]
    pub gateway_timeout: Duration,
    /// How long the simulated gateway takes to answer.
    #[arg(
        long,
        env = "PAYONCE_SIMULATED_GATEWAY_LATENCY",
        value_name = "DURATION"
    )]
    #[arg(default_value = "100ms", value_parser = duration)]
    pub simulated_gateway_latency: Duration,
    /// Base URL of Stripe's API.
    #[arg(long, env = "PAYONCE_STRIPE_API_BASE", value_name = "URL")]
    #[arg(default_value = "https://api.stripe.com", value_parser = http_url)]
    pub stripe_api_base: String,
    /// Stripe's secret key. Required with --gateway stripe, and for as long as payments made through Stripe may still change.
    #[arg(
        long,
        env = "PAYONCE_STRIPE_SECRET_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    #[arg(value_parser = header_secret)]
    pub stripe_secret_key: Option<SecretString>,
}

impl GatewayArgs {
    /// The settings of the gateways that are set up.
    ///
    /// # Errors
    ///
    /// [`NoStripeSecretKey`] if Stripe is the gateway for new payments and has no key.
    pub fn settings(&self) -> Result<GatewaySettings, NoStripeSecretKey> {
        if self.gateway == GatewayKind::Stripe && self.stripe_secret_key.is_none() {
            return Err(NoStripeSecretKey);
        }
        let stripe = self.stripe_secret_key.clone();
        Ok(GatewaySettings {
            kind: self.gateway,
            simulated_latency: self.simulated_gateway_latency,
            stripe: stripe.map(|secret_key| StripeSettings {
                api_base: self.stripe_api_base.clone(),
                secret_key,
            }),
        })
    }
}
