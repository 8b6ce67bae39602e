//! A client that pays, captures, cancels and refunds, and repeats each request with its key until the answer is final.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::service::{Answer, Merchant, Request, payment};

use super::storm::Nodes;
use super::told::Told;

const GOOD_CARD: &str = "4242424242424242";
const CARD_WITHOUT_FUNDS: &str = "4000000000009995";

pub struct Client {
    number: u64,
    round: u32,
    rng: StdRng,
    merchant: Merchant,
    nodes: Arc<Nodes>,
    told: Arc<Told>,
    over: Arc<AtomicBool>,
    keys: u64,
}

impl Client {
    pub fn new(
        number: u64,
        round: u32,
        seed: u64,
        merchant: Merchant,
        nodes: Arc<Nodes>,
        told: Arc<Told>,
        over: Arc<AtomicBool>,
    ) -> Self {
        Self {
            number,
            round,
            rng: StdRng::seed_from_u64(
                seed.wrapping_add(u64::from(round))
                    .wrapping_mul(1_000)
                    .wrapping_add(number),
            ),
            merchant,
            nodes,
            told,
            over,
            keys: 0,
        }
    }

    /// Makes payments and operations on them, one after the other, until the round ends.
    pub async fn work(mut self) {
        while !self.over.load(Ordering::Relaxed) {
            self.life_of_a_payment().await;
        }
    }

    async fn life_of_a_payment(&mut self) {
        let cents: i64 = self.rng.random_range(100..10_000);
        let manual = self.rng.random_bool(0.4);
        let mut body = payment(&amount(cents));
        body["captureMethod"] = json!(if manual { "MANUAL" } else { "AUTOMATIC" });
        let card = if self.rng.random_bool(0.1) {
            CARD_WITHOUT_FUNDS
        } else {
            GOOD_CARD
        };
        let (key, request) = self.request("/v1/payments", body);
        let request = request.card(card);
        if self.rng.random_bool(0.1) {
            self.give_up(&request).await;
            return;
        }
        let paid = self.ask(&key, &request).await;
        let captured = match (paid.status.as_u16(), paid.text("state").as_str()) {
            (402, _) => return,
            (201, "SUCCESS") => cents,
            (201, "AUTHORIZED") => self.adjust(&paid, cents).await,
            other => panic!("{key}: {other:?}"),
        };
        if captured > 0 {
            self.refund(&paid, captured).await;
        }
    }

    /// A capture, a cancel, or both at once. Returns the captured amount.
    async fn adjust(&mut self, paid: &Answer, cents: i64) -> i64 {
        let path = format!("/v1/payments/{}", paid.text("id"));
        let part = self.rng.random_range(1..=cents);
        let capture = self.request(&format!("{path}/capture"), json!({"amount": amount(part)}));
        let cancel = self.request(&format!("{path}/cancel"), json!({}));
        let answers = match self.rng.random_range(0..4) {
            0 => vec![self.ask(&cancel.0, &cancel.1).await],
            1 => vec![self.ask(&capture.0, &capture.1).await],
            _ => {
                let both = (
                    self.ask(&capture.0, &capture.1),
                    self.ask(&cancel.0, &cancel.1),
                );
                let (captured, canceled) = tokio::join!(both.0, both.1);
                vec![captured, canceled]
            }
        };
        let done: Vec<Value> = answers
            .iter()
            .filter(|answer| answer.status == 200)
            .map(Answer::json)
            .collect();
        assert_eq!(done.len(), 1, "one of a capture and a cancel: {answers:?}");
        if done[0]["state"] == "SUCCESS" {
            part
        } else {
            0
        }
    }

    /// Sends refunds at once that together exceed the captured amount.
    async fn refund(&mut self, paid: &Answer, captured: i64) {
        let path = format!("/v1/payments/{}/refunds", paid.text("id"));
        let part = (captured * 2 / 3).max(1);
        let asked: Vec<_> = (0..self.rng.random_range(0..4))
            .map(|_| self.request(&path, json!({"amount": amount(part)})))
            .collect();
        if self.rng.random_bool(0.1) {
            for (_, request) in &asked {
                self.give_up(request).await;
            }
            return;
        }
        let answers = futures_util::future::join_all(
            asked.iter().map(|(key, request)| self.ask(key, request)),
        )
        .await;
        // A pending refund may fail later, and leave its amount to another.
        let given = answers
            .iter()
            .filter(|answer| answer.status == 201 && answer.text("state") == "SUCCESS")
            .count();
        let fit = usize::try_from(captured / part).expect("a few");
        assert!(
            given <= fit,
            "{given} refunds of {part} of {captured}: {answers:?}"
        );
    }

    fn request(&mut self, path: &str, body: Value) -> (String, Request) {
        self.keys += 1;
        let key = format!("client-{}-{}-{}", self.round, self.number, self.keys);
        (key.clone(), self.merchant.post(path, body).key(&key))
    }

    /// Sends once and never retries.
    async fn give_up(&self, request: &Request) {
        self.told.sent();
        self.told.given_up();
        let node = usize::try_from(self.number).unwrap_or_default();
        drop(request.clone().at(&self.nodes.url(node)).try_send().await);
    }

    /// Sends the same request, to one node and the other, until the answer is final. A client with an impatient user sends
    /// it twice at once.
    async fn ask(&self, key: &str, request: &Request) -> Answer {
        if self.number.is_multiple_of(4) {
            let (one, other) = tokio::join!(
                self.until_final(key, request, 0),
                self.until_final(key, request, 1)
            );
            assert_eq!(one.bytes, other.bytes, "{key}");
            one
        } else {
            self.until_final(
                key,
                request,
                usize::try_from(self.number).unwrap_or_default(),
            )
            .await
        }
    }

    async fn until_final(&self, key: &str, request: &Request, first_node: usize) -> Answer {
        let began = Instant::now();
        for node in first_node.. {
            self.told.sent();
            match request.clone().at(&self.nodes.url(node)).try_send().await {
                Ok(answer) if is_final(key, &answer) => {
                    self.told.note(key, request, &answer, began.elapsed());
                    return answer;
                }
                // A program would wait for Retry-After, a second or more; this one retries sooner.
                Ok(answer) if answer.bytes.is_empty() => tokio::time::sleep(PAUSE).await,
                Ok(answer) => {
                    self.told.not_final(&answer);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        unreachable!("there is always another node")
    }
}

const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Returns whether it is the key's outcome. Panics on an answer that reports an error of the client or of payonce.
fn is_final(key: &str, answer: &Answer) -> bool {
    match answer.status.as_u16() {
        200 | 201 => true,
        202 => false,
        // The HTTP server's own answer to a connection whose request it did not read in time, because the process was stopped.
        408 if answer.bytes.is_empty() => false,
        _ if answer.bytes.is_empty() => panic!("{key}: {answer:?}"),
        500 => panic!("{key}: {answer:?}"),
        _ => match answer.text("retry").as_str() {
            "same-key" => false,
            "new-key" | "no" => true,
            _ => panic!("{key}: {answer:?}"),
        },
    }
}

fn amount(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
