//! A second implementation: `localstripe` (PyPI), which others wrote from Stripe's documentation. It has no `amount_received` and
//! no idempotency keys, and knows an older version of the API: see [`older_wire`]. It confirms the shape of the calls and answers
//! that both versions share.
//!
//! `PAYONCE_LOCALSTRIPE` names its program; otherwise the one on the `PATH` is run.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::*;

/// Python takes its time to start, longer on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct LocalStripe {
    process: Child,
    base: String,
}

impl LocalStripe {
    /// Returns `None` if it is not installed.
    async fn start() -> Option<Self> {
        let program = std::env::var("PAYONCE_LOCALSTRIPE").unwrap_or("localstripe".to_owned());
        // It listens on IPv6's any-address.
        let port = TcpListener::bind("[::]:0").and_then(|listener| listener.local_addr());
        let port = match port {
            Ok(address) => address.port().to_string(),
            Err(error) => return skipped(&format!("no IPv6 here: {error}")),
        };
        let spawned = Command::new(&program)
            .args(["--from-scratch", "--port", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(error) => return skipped(&format!("{program}: {error}")),
        };
        let mut local = Self {
            process,
            base: format!("http://127.0.0.1:{port}"),
        };
        local.until_it_listens(&port).await;
        Some(local)
    }

    async fn until_it_listens(&mut self, port: &str) {
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(format!("127.0.0.1:{port}"))
            .await
            .is_err()
        {
            let ended = self.process.try_wait().expect("its state");
            assert_eq!(ended, None, "localstripe ended before it listened");
            assert!(begun.elapsed() < PATIENCE, "localstripe does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for LocalStripe {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    crate::support::skipped::skip(&format!(
        "the Stripe adapter against localstripe (pip install localstripe): {why}"
    ));
    None
}

#[tokio::test]
async fn localstripe_takes_and_gives_money() {
    let Some(local) = LocalStripe::start().await else {
        return;
    };
    let stripe = adapter(&older_wire::to(&local.base).await, AMPLE);
    let token = stripe
        .tokenize(&card("4242424242424242"), None)
        .await
        .expect("a token");
    let charged = stripe
        .charge(&charge("pay_1", token.as_str(), CaptureMethod::Automatic))
        .await
        .expect("a charge");
    let shown = charged.card.as_ref().expect("a card");
    assert_eq!(
        (shown.brand.as_str(), shown.last4.as_str()),
        ("visa", "4242")
    );
    let giving = refund(&charged, "ref_1", 2_000);
    let refunded = stripe.refund(&giving).await.expect("a refund");
    assert_eq!(
        stripe.find_refund(&giving).await.expect("an answer"),
        Some(refunded)
    );
    let never = refund(&charged, "ref_2", 2_000);
    assert_eq!(stripe.find_refund(&never).await.expect("an answer"), None);

    let holding = charge("pay_2", token.as_str(), CaptureMethod::Manual);
    let held = stripe.charge(&holding).await.expect("a charge");
    let taking = capture(&held, 3_000);
    assert_eq!(stripe.find_capture(&taking).await.expect("an answer"), None);
    stripe.capture(&taking).await.expect("a capture");
    assert_eq!(
        stripe.find_capture(&taking).await.expect("an answer"),
        Some(())
    );

    let held = stripe.charge(&holding).await.expect("a charge");
    let letting_go = cancel(&held);
    stripe.cancel(&letting_go).await.expect("a cancel");
    assert_eq!(
        stripe.find_cancel(&letting_go).await.expect("an answer"),
        Some(())
    );
}

#[tokio::test]
async fn localstripe_declines() {
    let Some(local) = LocalStripe::start().await else {
        return;
    };
    let stripe = adapter(&older_wire::to(&local.base).await, AMPLE);
    let rows = [
        // Its own card for a charge that is declined; the usual ones it declines only when they are given to a customer.
        ("4000000000000341", "declined card_declined"),
        ("4000002500003155", "declined authentication_required"),
    ];
    for (number, expected) in rows {
        let token = stripe.tokenize(&card(number), None).await.expect("a token");
        let charge = charge("pay_1", token.as_str(), CaptureMethod::Automatic);
        assert_eq!(word(&stripe.charge(&charge).await), expected, "{number}");
    }
}
