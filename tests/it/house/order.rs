//! Lists have the order that the OpenAPI document states.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::service::Service;

/// The paths whose description names an order, and whether it is the newest first.
fn lists(document: &Value) -> BTreeSet<(String, bool)> {
    let paths = document["paths"].as_object().expect("paths");
    let mut lists = BTreeSet::new();
    for (path, item) in paths {
        let call = &item["get"];
        for text in [
            &call["summary"],
            &call["description"],
            &call["responses"]["200"]["description"],
        ] {
            let text = text.as_str().unwrap_or_default();
            for (words, is_newest_first) in [("newest first", true), ("oldest first", false)] {
                if text.contains(words) {
                    lists.insert((path.clone(), is_newest_first));
                }
            }
        }
    }
    lists
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn lists_come_in_the_order_that_the_document_names(_: PgPoolOptions, db: PgConnectOptions) {
    let document = serde_json::from_str(include_str!("../../../openapi.json")).expect("JSON");
    let lists = lists(&document);
    assert_eq!(
        lists.len(),
        2,
        "one order each for payments and refunds: {lists:?}"
    );
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let (mut payments, mut refunds) = (Vec::new(), Vec::new());
    for key in ["one", "two", "three"] {
        payments.push(acme.pay("10").key(key).send().await.text("id"));
    }
    let id = payments[2].clone();
    for key in ["one", "two", "three"] {
        let refund = acme.post(
            &format!("/v1/payments/{id}/refunds"),
            json!({"amount": "1"}),
        );
        refunds.push(refund.key(key).send().await.text("id"));
    }
    for (path, is_newest_first) in lists {
        let list = acme.get(&path.replace("{id}", &id)).await.json();
        let data = list["data"].as_array().expect("a list").iter();
        let id = |item: &Value| item["id"].as_str().expect("an id").to_owned();
        let mut ids: Vec<String> = data.map(id).collect();
        if is_newest_first {
            ids.reverse();
        }
        let made = if path.ends_with("refunds") {
            &refunds
        } else {
            &payments
        };
        assert_eq!(&ids, made, "{path}");
    }
}
