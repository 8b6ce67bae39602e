//! Addresses of the console's own pages. Names are query parameters, because a key may contain any visible character.

use maud::{Markup, html};

use super::html;

/// An address with its parameters, encoded.
pub(super) fn href(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    format!("{path}?{}", query.finish())
}

/// The same, without the parameters that are empty.
pub(super) fn href_of_given(path: &str, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let given: Vec<(&str, &str)> = given.copied().collect();
    match given.is_empty() {
        true => path.to_owned(),
        false => href(path, &given),
    }
}

/// A key's page.
pub(super) fn key_href(merchant_id: &str, operation: &str, key: &str) -> String {
    let named = [
        ("merchant", merchant_id),
        ("operation", operation),
        ("key", key),
    ];
    href("/console/key", &named)
}

/// A payment's page.
pub(super) fn payment_href(merchant_id: &str, payment_id: &str) -> String {
    let named = [("merchant", merchant_id), ("id", payment_id)];
    href("/console/payment", &named)
}

/// A refund's page.
pub(super) fn refund_href(merchant_id: &str, refund_id: &str) -> String {
    let named = [("merchant", merchant_id), ("id", refund_id)];
    href("/console/refund", &named)
}

/// A link to the payment or refund that a key made.
pub(super) fn resource(merchant_id: &str, id: &str) -> Markup {
    let address = match id.split_once('_') {
        Some(("pay", _)) => payment_href(merchant_id, id),
        Some(("ref", _)) => refund_href(merchant_id, id),
        _ => return html::id(id),
    };
    html! { a href=(address) { (html::id(id)) } }
}

/// A key as a link to its page.
pub(super) fn key(merchant_id: &str, operation: &str, key: &str) -> Markup {
    html! { a href=(key_href(merchant_id, operation, key)) { (html::id(key)) } }
}

/// A link to this page for one merchant only.
pub(super) fn merchant(path: &str, merchant_id: &str) -> Markup {
    html! { a href=(href(path, &[("merchant", merchant_id)])) { (merchant_id) } }
}
