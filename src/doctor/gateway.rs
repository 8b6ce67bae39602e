//! Whether the gateway can be reached, and accepts our key.

use secrecy::ExposeSecret;

use super::Finding;
use crate::config::GatewayArgs;
use crate::gateway::{StripeGateway, StripeProbe};
use crate::settings::GatewayKind;

const NAME: &str = "gateway";

pub(super) async fn examine(args: &GatewayArgs) -> Vec<Finding> {
    match args.gateway {
        GatewayKind::Simulated => vec![Finding::warning(
            NAME,
            "simulated: no money moves",
            "for real payments set PAYONCE_GATEWAY=stripe and PAYONCE_STRIPE_SECRET_KEY",
        )],
        GatewayKind::Stripe => vec![stripe(args).await],
    }
}

async fn stripe(args: &GatewayArgs) -> Finding {
    let Some(key) = args.stripe_secret_key.clone() else {
        return Finding::problem(
            NAME,
            "stripe, without its secret key",
            "set PAYONCE_STRIPE_SECRET_KEY",
        );
    };
    let base = &args.stripe_api_base;
    let is_test_key = key.expose_secret().contains("_test_");
    match StripeGateway::new(base, key, args.gateway_timeout) {
        Ok(gateway) => judge(base, is_test_key, gateway.probe().await),
        Err(error) => Finding::problem(
            NAME,
            super::finding::chain(&error),
            "correct PAYONCE_STRIPE_API_BASE and PAYONCE_STRIPE_SECRET_KEY",
        ),
    }
}

fn judge(base: &str, is_test_key: bool, probe: StripeProbe) -> Finding {
    match probe {
        StripeProbe::Answers if !is_test_key => {
            Finding::ok(NAME, format!("{base} accepts our key"))
        }
        StripeProbe::Answers => Finding::warning(
            NAME,
            format!("{base} accepts our key, which is a test key: no money moves"),
            "for real payments set PAYONCE_STRIPE_SECRET_KEY to a live key",
        ),
        StripeProbe::Misconfigured(reason) => Finding::problem(
            NAME,
            format!("{base} refuses this service: status {reason}"),
            "set PAYONCE_STRIPE_SECRET_KEY to a key of the right account that may read and write payment intents, payment methods and refunds",
        ),
        StripeProbe::Ill(status) => Finding::warning(
            NAME,
            format!("{base} answers with status {status}"),
            "if this persists, check the gateway's status page; payments are answered 503 or 202 until then",
        ),
        StripeProbe::Silent(why) => Finding::problem(
            NAME,
            format!("{base} does not answer: {why}"),
            "check PAYONCE_STRIPE_API_BASE, name resolution, the firewall and the system's root certificates",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_test_key_moves_no_money() {
        let verdict = |is_test_key| judge("b", is_test_key, StripeProbe::Answers).verdict;
        assert_eq!(verdict(true), Verdict::Warning);
        assert_eq!(verdict(false), Verdict::Ok);
    }
}
