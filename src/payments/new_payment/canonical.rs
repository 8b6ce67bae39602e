use super::{Instrument, NewPayment};
use crate::cards::Card;
use crate::gateway::CaptureMethod;
use crate::idempotency::{CanonicalFields, Fingerprinted};

/// Only ever appended to: rows name a path by its place.
const KNOWN_PATHS: [&str; 14] = [
    "amount",
    "currency",
    "captureMethod",
    "paymentMethod.token",
    "paymentMethod.details.cardNumber",
    "paymentMethod.details.expiryMonth",
    "paymentMethod.details.expiryYear",
    "paymentMethod.details.cardHolderName",
    "customer.id",
    "customer.email",
    "customer.name",
    "customer.gatewayCustomerId",
    "offSession",
    "description",
];

impl Fingerprinted for NewPayment {
    fn known_paths(&self) -> &'static [&'static str] {
        &KNOWN_PATHS
    }

    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        fields.insert("amount", self.amount.to_string());
        fields.insert("currency", self.amount.currency().code());
        if self.capture_method != CaptureMethod::default() {
            fields.insert("captureMethod", self.capture_method.as_str());
        }
        match &self.instrument {
            Instrument::Card(card) => canonicalize_card(card, fields),
            Instrument::Token(token) => fields.insert("paymentMethod.token", token.as_str()),
        }
        fields.insert_some("customer.id", self.customer.id.as_deref());
        fields.insert_some("customer.email", self.customer.email.as_deref());
        fields.insert_some("customer.name", self.customer.name.as_deref());
        fields.insert_some(
            "customer.gatewayCustomerId",
            self.customer.gateway_customer_id.as_deref(),
        );
        if self.off_session {
            fields.insert("offSession", "true");
        }
        fields.insert_some("description", self.description.as_deref());
        for (name, text) in &self.metadata {
            fields.insert(format!("metadata.{name}"), text.as_str());
        }
        Ok(())
    }
}

/// The security code is left out: PCI DSS 3.3.1.2 forbids keeping it, and even a keyed hash of three digits can be
/// found by trying all values, if the key is known.
fn canonicalize_card(card: &Card, fields: &mut CanonicalFields) {
    fields.insert("paymentMethod.details.cardNumber", card.number.expose());
    fields.insert(
        "paymentMethod.details.expiryMonth",
        card.expiry_month.to_string(),
    );
    fields.insert(
        "paymentMethod.details.expiryYear",
        card.expiry_year.to_string(),
    );
    fields.insert_some(
        "paymentMethod.details.cardHolderName",
        card.holder_name.as_deref(),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::payments::new_payment::fixtures::{full, minimal, payment, with};

    fn canonical(request: &Json) -> CanonicalFields {
        let mut fields = CanonicalFields::default();
        payment(request)
            .canonicalize(&mut fields)
            .expect("canonical fields");
        fields
    }

    #[test]
    fn every_path_but_metadatas_is_known_and_in_its_place() {
        let token = with(
            full(),
            "/paymentMethod",
            json!({"type": "CARD", "token": "pm_card_visa"}),
        );
        for request in [full(), token] {
            let unknown = format!("{:?}", canonical(&request));
            let paths = unknown.trim_matches(['{', '}']).split(", ");
            for path in paths.map(|path| path.trim_matches('"')) {
                let is_known = KNOWN_PATHS.contains(&path);
                assert!(is_known || path.starts_with("metadata."), "{path}");
            }
        }
        // A change here makes rows name other fields: append only.
        assert_eq!((KNOWN_PATHS[0], KNOWN_PATHS[13]), ("amount", "description"));
    }

    #[test]
    fn another_spelling_is_the_same_request() {
        let amount = |amount: Json| with(full(), "/amount", amount);
        let details = |name: &str, value: Json| {
            with(full(), &format!("/paymentMethod/details/{name}"), value)
        };
        let rows = [
            amount(json!(100)),
            amount(json!("100")),
            amount(json!("100.0")),
            amount(json!("1e2")),
            details("cardNumber", json!("4242 4242 4242 4242")),
            details("expiryMonth", json!(9)),
            details("expiryMonth", json!("09")),
            details("expiryYear", json!(2031)),
            details("cvv", json!("123")),
        ];
        for request in &rows {
            assert!(canonical(request) == canonical(&full()), "{request}");
        }
        let defaults = [
            ("/captureMethod", json!("AUTOMATIC")),
            ("/captureMethod", Json::Null),
            ("/customer", json!({})),
            (
                "/customer",
                json!({"id": null, "email": null, "name": null}),
            ),
            ("/description", Json::Null),
            ("/metadata", json!({})),
            ("/metadata", Json::Null),
            ("/paymentMethod/details", Json::Null),
        ];
        for (pointer, value) in defaults {
            assert!(
                canonical(&with(minimal(), pointer, value)) == canonical(&minimal()),
                "{pointer}"
            );
        }
    }

    #[test]
    fn each_change_makes_another_request() {
        let rows = [
            ("/amount", json!("100.01")),
            ("/currency", json!("EUR")),
            ("/captureMethod", json!("AUTOMATIC")),
            (
                "/paymentMethod/details/cardNumber",
                json!("4000000000000002"),
            ),
            ("/paymentMethod/details/expiryMonth", json!(10)),
            ("/paymentMethod/details/expiryYear", json!(2032)),
            ("/paymentMethod/details/cardHolderName", json!("test user")),
            ("/paymentMethod/details/cardHolderName", Json::Null),
            (
                "/paymentMethod",
                json!({"type": "CARD", "token": "pm_card_visa"}),
            ),
            ("/customer/id", json!("c2")),
            ("/customer/id", Json::Null),
            ("/customer/email", json!("A@b.example")),
            ("/customer/name", json!("Ann ")),
            ("/description", json!("A Book")),
            ("/description", Json::Null),
            ("/metadata/order", json!("8")),
            ("/metadata", json!({"order": "7", "more": ""})),
            ("/metadata", json!({"Order": "7"})),
            ("/metadata", json!({})),
        ];
        for (pointer, value) in rows {
            assert!(
                canonical(&with(full(), pointer, value)) != canonical(&full()),
                "{pointer}"
            );
        }
        let other_token = with(
            minimal(),
            "/paymentMethod/token",
            json!("pm_card_mastercard"),
        );
        assert!(canonical(&other_token) != canonical(&minimal()));
    }

    #[test]
    fn the_canonical_forms_paths_are_the_requests() {
        let paths = [
            "amount",
            "captureMethod",
            "currency",
            "customer.email",
            "customer.id",
            "customer.name",
            "description",
            "metadata.order",
            "paymentMethod.details.cardHolderName",
            "paymentMethod.details.cardNumber",
            "paymentMethod.details.expiryMonth",
            "paymentMethod.details.expiryYear",
        ];
        let quoted = paths.map(|path| format!("\"{path}\"")).join(", ");
        assert_eq!(format!("{:?}", canonical(&full())), format!("{{{quoted}}}"));
    }

    #[test]
    fn defaults_are_not_in_the_canonical_form() {
        // Otherwise an upgrade that adds a field would change the fingerprints of requests under way.
        assert_eq!(
            format!("{:?}", canonical(&minimal())),
            r#"{"amount", "currency", "paymentMethod.token"}"#
        );
    }
}
