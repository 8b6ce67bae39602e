//! Pays an order, once, however often it is run: `pay ORDER AMOUNT TOKEN`
//!
//! `PAYONCE_URL` and `PAYONCE_API_KEY` name the service and the merchant.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Value, json};

/// Why there is no payment.
enum Failure {
    /// Declined, not valid, or another request's key: sending it again changes nothing. `charged` says whether the key paid.
    Refused(String),
    /// Run it again later: the same key finds the outcome.
    NotKnownYet,
}

async fn pay(client: &Client, order: &str, amount: &str, token: &str) -> Result<Value, Failure> {
    let url = format!("{}/v1/payments", variable("PAYONCE_URL"));
    // The amount is a string: a float may not be what was meant.
    let body = json!({
        "amount": amount,
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "token": token},
    });
    let request = client
        .post(url)
        .bearer_auth(variable("PAYONCE_API_KEY"))
        // Derived from the order and not random, so that a second run, even after a crash, sends the same key and request.
        .header("Idempotency-Key", format!("order-{order}"))
        .json(&body);
    for attempt in 0..8 {
        // A growing, random pause, so that clients don't retry all at once.
        let mut pause = Duration::from_millis(rand::random_range(100..=100 << attempt));
        let Some(request) = request.try_clone() else {
            break;
        };
        // No answer: it may have been paid, and the same key finds out.
        if let Ok(answer) = request.send().await {
            // As long as the service says.
            pause = retry_after(&answer).unwrap_or(pause);
            let status = answer.status();
            if let Ok(text) = answer.text().await {
                let read: Value = serde_json::from_str(&text).unwrap_or_default();
                match status {
                    StatusCode::OK | StatusCode::CREATED => return Ok(read),
                    StatusCode::ACCEPTED => {}
                    _ if status.is_server_error() || read["retry"] == "same-key" => {}
                    _ => return Err(Failure::Refused(text)),
                }
            }
        }
        eprintln!("order {order}: not known yet; trying again in {pause:.1?}");
        tokio::time::sleep(pause).await;
    }
    Err(Failure::NotKnownYet)
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // An order that is not set must not be paid as the order "".
    let all_are_set = arguments.iter().all(|argument| !argument.is_empty())
        && !variable("PAYONCE_API_KEY").is_empty()
        && Url::parse(&variable("PAYONCE_URL")).is_ok();
    let ([order, amount, token], true) = (&arguments[..], all_are_set) else {
        eprintln!(
            "usage: PAYONCE_URL=http://… PAYONCE_API_KEY=sk_… pay ORDER AMOUNT TOKEN, none of them empty"
        );
        return ExitCode::from(2);
    };
    // This crate's reqwest is built without a provider of TLS; with reqwest's own features, leave this line out.
    drop(rustls::crypto::ring::default_provider().install_default());
    // Longer than the service waits for its gateway (10 s).
    let client = match Client::builder().timeout(Duration::from_secs(15)).build() {
        Ok(client) => client,
        Err(error) => {
            eprintln!("pay: {error}");
            return ExitCode::FAILURE;
        }
    };
    match pay(&client, order, amount, token).await {
        Ok(payment) => {
            println!("{payment}");
            ExitCode::SUCCESS
        }
        Err(Failure::Refused(problem)) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
        Err(Failure::NotKnownYet) => {
            eprintln!("order {order}: the outcome is not known yet; run this again");
            ExitCode::from(75)
        }
    }
}
