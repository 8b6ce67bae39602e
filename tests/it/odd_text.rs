//! A gateway whose text cannot be stored, or not as it is: its outcome is stored all the same, and told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use payonce::cards::{Card, CardSummary};
use payonce::gateway::{
    Advice, Cancel, Capture, Charge, Charged, Decline, Gateway, GatewayError, GatewayRefund,
    GatewayToken, RefundProgress, Refunded, SimulatedGateway,
};
use payonce::recovery::Recovery;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::rows::{end_leases, execute, make_looks_due};
use crate::support::service::{Answer, Merchant, Service, Setup, payment};

const NUMBER: &str = "4242424242424242";

/// Charges answer what is set, once, and so do captures and cancels, and refunds.
struct OddGateway {
    inner: SimulatedGateway,
    charge: Mutex<Option<Result<Charged, GatewayError>>>,
    adjustment: Mutex<Option<GatewayError>>,
    refund: Mutex<Vec<Result<Refunded, GatewayError>>>,
}

impl OddGateway {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: SimulatedGateway::new(Duration::ZERO),
            charge: Mutex::default(),
            adjustment: Mutex::default(),
            refund: Mutex::default(),
        })
    }

    fn charges(&self, answer: Result<Charged, GatewayError>) {
        *self.charge.lock().expect("the answer") = Some(answer);
    }

    fn adjusts(&self, error: GatewayError) {
        *self.adjustment.lock().expect("the answer") = Some(error);
    }

    /// The next answers about refunds, last first.
    fn refunds(&self, answers: Vec<Result<Refunded, GatewayError>>) {
        *self.refund.lock().expect("the answers") = answers;
    }

    fn adjust<'a>(
        &'a self,
        done: BoxFuture<'a, Result<(), GatewayError>>,
    ) -> BoxFuture<'a, Result<(), GatewayError>> {
        async move {
            let set = self.adjustment.lock().expect("the answer").take();
            match set {
                Some(error) => Err(error),
                None => done.await,
            }
        }
        .boxed()
    }
}

impl Gateway for OddGateway {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn tokenizes_remotely(&self) -> bool {
        false
    }
    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        account: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>> {
        self.inner.tokenize(card, account)
    }
    fn describe_token(&self, _: &GatewayToken) -> Option<CardSummary> {
        None
    }
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        async move {
            let set = self.charge.lock().expect("the answer").take();
            match set {
                Some(answer) => answer,
                None => self.inner.charge(charge).await,
            }
        }
        .boxed()
    }
    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.adjust(self.inner.capture(capture))
    }
    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.adjust(self.inner.cancel(cancel))
    }
    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>> {
        async move {
            let set = self.refund.lock().expect("the answers").pop();
            match set {
                Some(answer) => answer,
                None => self.inner.refund(refund).await,
            }
        }
        .boxed()
    }
    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>> {
        self.inner.find_charge(charge)
    }
    fn find_capture<'a>(
        &'a self,
        capture: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.inner.find_capture(capture)
    }
    fn find_cancel<'a>(
        &'a self,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.inner.find_cancel(cancel)
    }
    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>> {
        self.refund(refund).map(|found| found.map(Some)).boxed()
    }
}

async fn start(db: &PgConnectOptions, gateway: &Arc<OddGateway>) -> (Service, Merchant) {
    let setup = Setup {
        // Passes are made by the test.
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    let timeout = Duration::from_secs(10);
    let service = Service::start_on(db, setup, gateway.clone(), timeout).await;
    let acme = service.merchant("acme").await;
    (service, acme)
}

async fn pay(acme: &Merchant, key: &str, method: &str) -> Answer {
    let mut body = payment("50");
    body["captureMethod"] = json!(method);
    body["paymentMethod"] = json!({"type": "CARD", "token": "pm_card_visa"});
    acme.post("/v1/payments", body).key(key).send().await
}

/// The same answer from memory, and the same again by name from another process's view: the database.
async fn assert_is_stored(service: &Service, first: &Answer, again: &Answer) {
    assert_eq!(again.status, first.status, "{again:?}");
    assert_eq!(again.json(), first.json());
    assert_eq!(service.count("unsettled_keys").await, 0);
}

fn charged(transaction_id: &str, last4: &str, brand: &str, name: &str) -> Charged {
    Charged {
        transaction_id: transaction_id.to_owned(),
        card: Some(CardSummary {
            brand: brand.to_owned(),
            last4: last4.to_owned(),
            expiry_month: 12,
            expiry_year: 2031,
            holder_name: Some(name.to_owned()),
        }),
    }
}

fn odd_declines() -> Vec<Decline> {
    let long = "x".repeat(10 * 1024 * 1024);
    let decline = |code: &str, message: &str, advice: &str| Decline {
        code: code.to_owned(),
        message: message.to_owned(),
        advice: Advice {
            advice_code: Some(advice.to_owned()),
            network_advice_code: Some(advice.to_owned()),
            network_decline_code: Some(advice.to_owned()),
        },
    };
    vec![
        decline("lost\0_card", "Lost\0", "do_not\0"),
        decline(&long, &long, &long),
        decline("", "", ""),
        decline(NUMBER, &format!("No {NUMBER}."), NUMBER),
    ]
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn text_that_cannot_be_stored_is_made_storable(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = OddGateway::new();
    let (service, acme) = start(&db, &gateway).await;
    for (n, decline) in odd_declines().into_iter().enumerate() {
        gateway.charges(Err(GatewayError::Declined(decline.clone())));
        let key = format!("declined-{n}");
        let first = pay(&acme, &key, "AUTOMATIC").await;
        assert_eq!(first.status.as_u16(), 402, "{first:?}");
        let shown = first.json().to_string();
        assert!(shown.len() < 2000 && !shown.contains(NUMBER), "{shown}");
        assert_is_stored(&service, &first, &pay(&acme, &key, "AUTOMATIC").await).await;
        let read = acme
            .get(&format!("/v1/payments/{}", first.text("paymentId")))
            .await;
        assert_eq!(read.status.as_u16(), 200, "{read:?}");
    }
    let forty = "4".repeat(40);
    let long = "x".repeat(10 * 1024 * 1024);
    for (n, odd) in [
        charged("pi_1", &forty, "visa", "Zoë"),
        charged("pi_2", "4242", "vi\0sa", &long),
        charged("pi_3", "4242", &long, NUMBER),
        charged("pi\0_4", "42\u{0}2", "visa", "\0"),
        charged(&long, "4242", "visa", "Zoë"),
    ]
    .into_iter()
    .enumerate()
    {
        gateway.charges(Ok(odd));
        let key = format!("charged-{n}");
        let first = pay(&acme, &key, "AUTOMATIC").await;
        assert_eq!(first.status.as_u16(), 201, "{first:?}");
        let shown = first.json().to_string();
        assert!(shown.len() < 2000 && !shown.contains(NUMBER), "{shown}");
        assert!(!shown.contains(&forty), "{shown}");
        assert_is_stored(&service, &first, &pay(&acme, &key, "AUTOMATIC").await).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn captures_cancels_and_refunds_with_such_text_end(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = OddGateway::new();
    let (service, acme) = start(&db, &gateway).await;
    let long = "x".repeat(10 * 1024 * 1024);
    for (n, decline) in odd_declines().into_iter().enumerate() {
        let held = pay(&acme, &format!("held-{n}"), "MANUAL").await.text("id");
        for what in ["capture", "cancel"] {
            gateway.adjusts(GatewayError::Declined(decline.clone()));
            let request = acme.post(&format!("/v1/payments/{held}/{what}"), json!({}));
            let first = request.clone().key(&format!("{what}-{n}")).send().await;
            assert_eq!(first.status.as_u16(), 402, "{first:?}");
        }
        gateway.adjusts(GatewayError::HoldLapsed {
            reason: Some(decline.message.clone()),
        });
        let request = acme.post(&format!("/v1/payments/{held}/cancel"), json!({}));
        let lapsed = request.key(&format!("lapsed-{n}")).send().await;
        assert_eq!(lapsed.status.as_u16(), 200, "{lapsed:?}");

        let paid = pay(&acme, &format!("paid-{n}"), "AUTOMATIC")
            .await
            .text("id");
        let refund = acme.post(
            &format!("/v1/payments/{paid}/refunds"),
            json!({"amount": "1"}),
        );
        gateway.refunds(vec![Err(GatewayError::Declined(decline.clone()))]);
        let declined = refund.clone().key(&format!("declined-{n}")).send().await;
        assert_eq!(declined.status.as_u16(), 402, "{declined:?}");
        let pending = |id: &str| Refunded {
            gateway_refund_id: id.to_owned(),
            progress: RefundProgress::Pending,
        };
        gateway.refunds(vec![Ok(pending(&long))]);
        let accepted = refund.key(&format!("pending-{n}")).send().await;
        assert_eq!(accepted.status.as_u16(), 201, "{accepted:?}");
        make_looks_due(&service.pool).await;
        gateway.refunds(vec![Err(GatewayError::Declined(decline))]);
        assert_eq!(service.payments.follow_refunds().await.expect("a pass"), 1);
    }
    assert_eq!(service.count("unsettled_keys").await, 0);
}

/// A database that refuses a gateway's text for a reason of its own.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_settle_that_is_refused_for_its_text_is_stored_without_it(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = OddGateway::new();
    let (service, acme) = start(&db, &gateway).await;
    execute(
        &service.pool,
        "alter table payments add check (failure_message not like 'odd%'); \
         alter table payments add check (card_brand not like 'odd%'); \
         alter table payments add check (cancellation_reason not like 'odd%'); \
         alter table refunds add check (failure_message not like 'odd%')",
    )
    .await;
    let odd = || GatewayError::Declined(Decline::new("odd", "odd"));
    gateway.charges(Err(odd()));
    let declined = pay(&acme, "declined", "AUTOMATIC").await;
    declined.assert_problem(402, "payment-declined", "new-key");
    assert_eq!(declined.text("declineCode"), "generic_decline");
    assert_is_stored(
        &service,
        &declined,
        &pay(&acme, "declined", "AUTOMATIC").await,
    )
    .await;

    gateway.charges(Ok(charged("pi_1", "4242", "odd", "Zoë")));
    let paid = pay(&acme, "paid", "AUTOMATIC").await;
    assert_eq!(paid.status.as_u16(), 201, "{paid:?}");
    assert_is_stored(&service, &paid, &pay(&acme, "paid", "AUTOMATIC").await).await;

    let refunds = format!("/v1/payments/{}/refunds", paid.text("id"));
    let refund = acme.post(&refunds, json!({"amount": "1"}));
    gateway.refunds(vec![Err(odd())]);
    let declined = refund.clone().key("declined").send().await;
    assert_eq!(declined.text("declineCode"), "generic_decline");
    gateway.refunds(vec![Ok(Refunded {
        gateway_refund_id: "re_1".to_owned(),
        progress: RefundProgress::Pending,
    })]);
    let pending = refund.key("pending").send().await;
    assert_eq!(pending.status.as_u16(), 201, "{pending:?}");
    make_looks_due(&service.pool).await;
    gateway.refunds(vec![Err(odd())]);
    assert_eq!(service.payments.follow_refunds().await.expect("a pass"), 1);

    let held = pay(&acme, "held", "MANUAL").await.text("id");
    gateway.adjusts(GatewayError::HoldLapsed {
        reason: Some("odd".to_owned()),
    });
    let cancel = acme.post(&format!("/v1/payments/{held}/cancel"), json!({}));
    assert_eq!(cancel.key("lapsed").send().await.status.as_u16(), 200);
    assert_eq!(service.count("unsettled_keys").await, 0);
}

/// Not even that helps: the key stays as it is, which is told, and recovery makes pauses.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_settle_that_is_refused_for_good_is_not_tried_all_the_time(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = OddGateway::new();
    let (service, acme) = start(&db, &gateway).await;
    execute(
        &service.pool,
        "alter table payments add constraint closed check (state = 'PROCESSING')",
    )
    .await;
    let failed = pay(&acme, "refused", "AUTOMATIC").await;
    failed.assert_problem(500, "internal-error", "same-key");
    assert_eq!(service.count("unsettled_keys").await, 1);
    end_leases(&service.pool).await;
    let mut recovery = Recovery::new(service.payments.clone());
    let pass = recovery.run_once().await.expect("a pass");
    assert_eq!((pass.found, pass.failed), (1, 1), "{pass:?}");
    end_leases(&service.pool).await;
    let pass = recovery.run_once().await.expect("a pass");
    assert_eq!((pass.found, pass.waiting), (1, 1), "{pass:?}");
    execute(&service.pool, "alter table payments drop constraint closed").await;
    let pass = Recovery::new(service.payments.clone()).run_once().await;
    assert_eq!(pass.expect("a pass").resolved, 1);
    assert_eq!(
        pay(&acme, "refused", "AUTOMATIC").await.status.as_u16(),
        201
    );
}
