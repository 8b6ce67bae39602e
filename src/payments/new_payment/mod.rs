//! A client's request for a payment: `POST /v1/payments`.

mod canonical;
#[cfg(test)]
mod fixtures;

use std::collections::BTreeMap;

use crate::cards::{Card, CardError, Cvv, Pan};
use crate::gateway::{CaptureMethod, GatewayToken};
use crate::input::{
    Fault, FieldError, Fields, InputError, Rejected, StringMapLimits, Value, boolean, decimal_text,
    multiline_text, named, read_object, text, token, whole_number,
};
use crate::money::{Amount, Currency, MajorAmount};

const MAX_ID_CHARACTERS: usize = 255;
const MAX_NAME_CHARACTERS: usize = 200;
const MAX_DESCRIPTION_CHARACTERS: usize = 1000;
/// RFC 5321, 4.5.3.1.3: a path has 256 octets, of which two are its angle brackets.
const MAX_EMAIL_CHARACTERS: usize = 254;
/// Stripe's own limits.
const METADATA_LIMITS: StringMapLimits = StringMapLimits {
    max_entries: 50,
    max_name: 40,
    max_text: 500,
};

/// A payment to make, validated.
#[derive(Debug)]
pub struct NewPayment {
    /// The amount to charge or hold.
    pub amount: Amount,
    /// Whether to take the money now or hold it for a later capture.
    pub capture_method: CaptureMethod,
    /// What is charged.
    pub instrument: Instrument,
    /// The payer.
    pub customer: Customer,
    /// What the payment is for, for people. Up to 1000 characters.
    pub description: Option<String>,
    /// The client's own notes: up to 50 entries, with names of up to 40 characters and texts of up to 500.
    pub metadata: BTreeMap<String, String>,
    /// True if the payer is not present to authenticate.
    pub off_session: bool,
}

/// What is charged: a card, or the gateway's token of one.
#[derive(Debug)]
pub enum Instrument {
    /// A card that the client sent.
    Card(Card),
    /// A card that the gateway has.
    Token(GatewayToken),
}

/// The payer, as the client describes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Customer {
    /// The client's own id of the customer. Up to 255 characters.
    pub id: Option<String>,
    /// The email address. Up to 254 characters.
    pub email: Option<String>,
    /// The name. Up to 200 characters.
    pub name: Option<String>,
    /// The gateway's own customer that the card is saved for. Up to 255 characters.
    pub gateway_customer_id: Option<String>,
}

impl NewPayment {
    /// Reads a request's body.
    ///
    /// # Errors
    ///
    /// All errors of the body at once.
    pub fn parse(body: &[u8]) -> Result<Self, InputError> {
        read_object(body, |fields| {
            let amount = read_amount(fields);
            let capture_method = fields.optional(
                "captureMethod",
                named("AUTOMATIC or MANUAL", CaptureMethod::from_name),
            );
            let instrument = fields.required_object("paymentMethod", read_payment_method);
            let customer = fields.optional_object("customer", read_customer);
            let description = fields.optional(
                "description",
                multiline_text(0..=MAX_DESCRIPTION_CHARACTERS),
            );
            let metadata = fields.optional_string_map("metadata", METADATA_LIMITS);
            let off_session = fields.optional("offSession", boolean);
            let payment = Self {
                amount: amount?,
                capture_method: capture_method?.unwrap_or_default(),
                instrument: instrument?,
                customer: customer?.unwrap_or_default(),
                description: description?,
                metadata: metadata?.unwrap_or_default(),
                off_session: off_session?.unwrap_or_default(),
            };
            payment.reject_exposed_number(fields)?;
            Ok(payment)
        })
    }

    /// Refuses a card, for a service that accepts only the gateway's tokens.
    ///
    /// # Errors
    ///
    /// The instrument is a card.
    pub fn refuse_card(&self) -> Result<(), InputError> {
        match self.instrument {
            Instrument::Token(_) => Ok(()),
            Instrument::Card(_) => Err(InputError::Invalid(vec![FieldError {
                field: "paymentMethod.details".to_owned(),
                message:
                    "is not taken here: send the gateway's token of the card in paymentMethod.token"
                        .to_owned(),
            }])),
        }
    }

    /// Refuses a card's number in another field. It would be stored with that field, which PCI DSS 3.5.1 forbids.
    fn reject_exposed_number(&self, fields: &mut Fields<'_, '_>) -> Result<(), Rejected> {
        let Instrument::Card(card) = &self.instrument else {
            return Ok(());
        };
        let is_exposed_in =
            |text: &Option<String>| text.as_deref().is_some_and(|text| card.number.is_in(text));
        let Customer {
            id,
            email,
            name,
            gateway_customer_id,
        } = &self.customer;
        let exposed = [
            (
                "paymentMethod.details.cardHolderName",
                is_exposed_in(&card.holder_name),
            ),
            ("customer.id", is_exposed_in(id)),
            ("customer.email", is_exposed_in(email)),
            ("customer.name", is_exposed_in(name)),
            (
                "customer.gatewayCustomerId",
                is_exposed_in(gateway_customer_id),
            ),
            ("description", is_exposed_in(&self.description)),
            (
                "metadata",
                self.metadata
                    .iter()
                    .any(|(name, text)| card.number.is_in(name) || card.number.is_in(text)),
            ),
        ];
        let mut outcome = Ok(());
        for (name, _) in exposed.into_iter().filter(|(_, is_exposed)| *is_exposed) {
            outcome = Err(fields.reject(name, "must not contain the card's number"));
        }
        outcome
    }
}

/// The amount's decimals can only be checked if the currency is known.
fn read_amount(fields: &mut Fields<'_, '_>) -> Result<Amount, Rejected> {
    let amount = fields.required("amount", decimal_text(MajorAmount::parse));
    let currency = fields.required(
        "currency",
        named(
            "an ISO 4217 code in upper case, such as USD",
            Currency::from_code,
        ),
    );
    let (amount, currency) = (amount?, currency?);
    amount
        .to_amount(currency)
        .map_err(|error| fields.reject("amount", error))
}

fn read_payment_method(fields: &mut Fields<'_, '_>) -> Result<Instrument, Rejected> {
    let kind = fields.required("type", named("CARD", |name| (name == "CARD").then_some(())));
    let card = fields.optional_object("details", read_card);
    let token = fields.optional("token", read_token);
    let instrument = match (card, token) {
        (Ok(Some(card)), Ok(None)) => Ok(Instrument::Card(card)),
        (Ok(None), Ok(Some(token))) => Ok(Instrument::Token(token)),
        (Ok(None), Ok(None)) => {
            Err(fields.reject("details", "is required, or `token` in its place"))
        }
        (Err(rejected), Ok(None)) | (Ok(None), Err(rejected)) => Err(rejected),
        (Ok(Some(_)) | Err(_), Ok(Some(_)) | Err(_)) => {
            Err(fields.reject("token", "must not be given together with `details`"))
        }
    };
    kind?;
    instrument
}

fn read_card(fields: &mut Fields<'_, '_>) -> Result<Card, Rejected> {
    let number = fields.required("cardNumber", digits(Pan::parse));
    let cvv = fields.required("cvv", digits(Cvv::parse));
    let expiry_month = fields.required("expiryMonth", read_month);
    // A month in the past is for the gateway to decline: it knows how long it accepts a card.
    let expiry_year = fields.required("expiryYear", whole_number(2000..=2099));
    let holder_name = fields.optional("cardHolderName", text(0..=MAX_NAME_CHARACTERS));
    Ok(Card {
        number: number?,
        cvv: cvv?,
        expiry_month: expiry_month?,
        expiry_year: expiry_year?,
        holder_name: holder_name?,
    })
}

/// Reads a string of digits that no message repeats.
fn digits<T>(
    parse: impl FnOnce(&str) -> Result<T, CardError>,
) -> impl FnOnce(Value<'_>) -> Result<T, Fault> {
    move |value| parse(&value.string()?).map_err(|error| error.to_string().into())
}

fn read_month(value: Value<'_>) -> Result<u8, Fault> {
    let month = whole_number(1..=12)(value)?;
    u8::try_from(month).map_err(|_| "must be a month".into())
}

fn read_token(value: Value<'_>) -> Result<GatewayToken, Fault> {
    gateways_name(value, "must be the gateway's token, not a card number").map(GatewayToken::new)
}

/// Reads a name that the gateway gave. It is stored and shown, so a card's number put here by mistake is refused.
fn gateways_name(value: Value<'_>, is_number: &'static str) -> Result<String, Fault> {
    let name = token(1..=MAX_ID_CHARACTERS)(value)?;
    if Pan::may_be_in(&name) {
        return Err(is_number.into());
    }
    Ok(name)
}

fn read_customer(fields: &mut Fields<'_, '_>) -> Result<Customer, Rejected> {
    let id = fields.optional("id", text(1..=MAX_ID_CHARACTERS));
    let email = fields.optional("email", read_email);
    let name = fields.optional("name", text(0..=MAX_NAME_CHARACTERS));
    let gateway_customer_id = fields.optional("gatewayCustomerId", |value| {
        gateways_name(value, "must be the gateway's customer, not a card number")
    });
    Ok(Customer {
        id: id?,
        email: email?,
        name: name?,
        gateway_customer_id: gateway_customer_id?,
    })
}

/// Only detects mixed-up fields. Whether an address exists cannot be checked here.
fn read_email(value: Value<'_>) -> Result<String, Fault> {
    let email = text(1..=MAX_EMAIL_CHARACTERS)(value)?;
    let is_address = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    if is_address && !email.contains(char::is_whitespace) {
        Ok(email)
    } else {
        Err("must be an email address".into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::fixtures::{full, minimal, parse, payment, with};
    use super::*;

    fn errors(request: &Json) -> Vec<String> {
        match parse(request) {
            Err(InputError::Invalid(errors)) => errors
                .into_iter()
                .map(|error| format!("{} {}", error.field, error.message))
                .collect(),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn every_field_is_read() {
        let payment = payment(&full());
        assert_eq!(
            payment.amount,
            Amount::from_minor(10000, Currency::from_code("USD").expect("USD"))
        );
        assert_eq!(payment.capture_method, CaptureMethod::Manual);
        let Instrument::Card(card) = &payment.instrument else {
            panic!("{payment:?}")
        };
        assert_eq!(
            (card.number.expose(), card.cvv.expose()),
            ("4242424242424242", "987")
        );
        assert_eq!((card.expiry_month, card.expiry_year), (9, 2031));
        assert_eq!(card.holder_name.as_deref(), Some("Test User"));
        let customer = Customer {
            id: Some("c1".to_owned()),
            email: Some("a@b.example".to_owned()),
            name: Some("Ann".to_owned()),
            gateway_customer_id: None,
        };
        assert_eq!(payment.customer, customer);
        assert_eq!(payment.description.as_deref(), Some("A book"));
        assert_eq!(
            payment.metadata,
            BTreeMap::from([("order".to_owned(), "7".to_owned())])
        );
    }

    #[test]
    fn what_may_be_left_out_has_its_default() {
        let payment = payment(&minimal());
        assert_eq!(payment.capture_method, CaptureMethod::Automatic);
        assert!(
            matches!(&payment.instrument, Instrument::Token(token) if token.as_str() == "pm_card_visa")
        );
        assert_eq!(payment.customer, Customer::default());
        assert_eq!(
            (payment.description, payment.metadata),
            (None, BTreeMap::new())
        );
    }

    #[test]
    fn all_errors_come_at_once() {
        let request = json!({
            "amount": "100.001", "currency": "USD", "captureMethod": "LATER", "extra": 1,
            "paymentMethod": {"type": "CASH", "details": {
                "cardNumber": "4242424242424241", "cvv": "12", "expiryMonth": "13", "expiryYear": 31, "pin": "1"
            }},
            "customer": {"id": "", "email": "nobody", "name": 5},
            "description": [],
            "metadata": {"a": 1, "b": true}
        });
        assert_eq!(
            errors(&request),
            [
                "amount must have at most 2 decimals in USD",
                "captureMethod must be AUTOMATIC or MANUAL",
                "paymentMethod.type must be CARD",
                "paymentMethod.details.cardNumber is not a valid card number",
                "paymentMethod.details.cvv must be 3 or 4 digits",
                "paymentMethod.details.expiryMonth must be a whole number from 1 to 12",
                "paymentMethod.details.expiryYear must be a whole number from 2000 to 2099",
                "paymentMethod.details.pin is not a known field",
                "customer.id must have 1 to 255 characters",
                "customer.email must be an email address",
                "customer.name must be a string",
                "description must be a string",
                "metadata.a must be a string",
                "metadata.b must be a string",
                "extra is not a known field",
            ]
        );
        assert_eq!(
            errors(&json!({})),
            [
                "amount is required",
                "currency is required",
                "paymentMethod is required"
            ]
        );
        assert_eq!(
            errors(&with(full(), "/paymentMethod", json!({"details": {}}))),
            [
                "paymentMethod.type is required",
                "paymentMethod.details.cardNumber is required",
                "paymentMethod.details.cvv is required",
                "paymentMethod.details.expiryMonth is required",
                "paymentMethod.details.expiryYear is required",
            ]
        );
    }

    #[test]
    fn an_amounts_decimals_are_judged_by_a_known_currency_only() {
        let request = |amount: &str, currency: &str| {
            with(
                with(minimal(), "/amount", json!(amount)),
                "/currency",
                json!(currency),
            )
        };
        assert_eq!(payment(&request("100", "JPY")).amount.to_string(), "100");
        assert_eq!(
            payment(&request("1.234", "KWD")).amount.to_string(),
            "1.234"
        );
        let no_currency = "currency must be an ISO 4217 code in upper case, such as USD";
        assert_eq!(
            errors(&request("100.00", "JPY")),
            ["amount must have no decimals in JPY"]
        );
        assert_eq!(errors(&request("1.23456", "usd")), [no_currency]);
        assert_eq!(
            errors(&request("0", "XXX")),
            ["amount must be greater than zero", no_currency]
        );
    }

    #[test]
    fn it_takes_a_card_or_a_token() {
        let token = |token: Json| with(minimal(), "/paymentMethod/token", token);
        assert_eq!(
            errors(&token(Json::Null)),
            ["paymentMethod.details is required, or `token` in its place"]
        );
        assert_eq!(
            errors(&with(full(), "/paymentMethod/token", json!("pm_card_visa"))),
            ["paymentMethod.token must not be given together with `details`"]
        );
        payment(&token(json!("t".repeat(255))));
        for (value, error) in [
            (json!(""), "must have 1 to 255 characters"),
            (json!("t".repeat(256)), "must have 1 to 255 characters"),
            (json!("pm card"), "must be visible ASCII characters"),
            (json!(7), "must be a string"),
            (
                json!("4242424242424242"),
                "must be the gateway's token, not a card number",
            ),
            (
                json!("4242-4242-4242-4242"),
                "must be the gateway's token, not a card number",
            ),
            (
                json!("4242_4242--4242.4242"),
                "must be the gateway's token, not a card number",
            ),
            (
                json!("tok_4242424242424242"),
                "must be the gateway's token, not a card number",
            ),
        ] {
            assert_eq!(
                errors(&token(value)),
                [format!("paymentMethod.token {error}")]
            );
        }
    }

    #[test]
    fn lengths_end_where_they_end() {
        let email = |length: usize| format!("{}@b.example", "a".repeat(length - 10));
        let rows = [
            (
                "/paymentMethod/details/cardHolderName",
                "é".repeat(200),
                "é".repeat(201),
            ),
            ("/customer/id", "é".repeat(255), "é".repeat(256)),
            ("/customer/name", "é".repeat(200), "é".repeat(201)),
            ("/customer/email", email(254), email(255)),
            ("/description", "é".repeat(1000), "é".repeat(1001)),
            ("/metadata/order", "é".repeat(500), "é".repeat(501)),
            ("/metadata/order", "\n".to_owned(), "\0".to_owned()),
            ("/description", "a\nb".to_owned(), "a\0b".to_owned()),
            ("/customer/id", "a b".to_owned(), "a\nb".to_owned()),
        ];
        for (pointer, longest, too_long) in rows {
            payment(&with(full(), pointer, json!(longest)));
            let path = pointer.trim_start_matches('/').replace('/', ".");
            let errors = errors(&with(full(), pointer, json!(too_long)));
            assert!(
                errors.len() == 1 && errors[0].starts_with(&path),
                "{pointer}: {errors:?}"
            );
        }
    }

    #[test]
    fn an_email_has_one_at_sign_with_something_on_both_sides() {
        for email in ["a@b", "a.b+c@d.example", "ä@ö.example"] {
            payment(&with(full(), "/customer/email", json!(email)));
        }
        for email in ["a", "@b", "a@", "@", "a@b@c", "a b@c", "a@b ", "Ann <a@b>"] {
            let errors = errors(&with(full(), "/customer/email", json!(email)));
            assert_eq!(
                errors,
                ["customer.email must be an email address"],
                "{email}"
            );
        }
    }

    #[test]
    fn months_and_years_are_numbers_or_strings_and_may_be_past() {
        for (month, year) in [
            (json!(1), json!(2000)),
            (json!("01"), json!("2099")),
            (json!("12"), json!(2031)),
        ] {
            let request = with(full(), "/paymentMethod/details/expiryMonth", month);
            payment(&with(request, "/paymentMethod/details/expiryYear", year));
        }
        for year in [
            json!(1999),
            json!(2100),
            json!("31"),
            json!("02031"),
            json!(2031.0),
        ] {
            let errors = errors(&with(full(), "/paymentMethod/details/expiryYear", year));
            assert_eq!(
                errors,
                ["paymentMethod.details.expiryYear must be a whole number from 2000 to 2099"]
            );
        }
    }

    #[test]
    fn the_cards_number_is_taken_nowhere_else() {
        for pointer in [
            "/paymentMethod/details/cardHolderName",
            "/customer/id",
            "/customer/name",
            "/description",
            "/metadata/order",
        ] {
            for number in [
                "card 4242 4242 4242 4242",
                "4242.4242.4242.4242",
                "4242_4242_4242_4242",
                "4242\u{a0}4242\u{2011}4242\u{2009}4242",
                "４２４２４２４２４２４２４２４２",
            ] {
                let errors = errors(&with(full(), pointer, json!(number)));
                assert!(
                    errors.len() == 1 && errors[0].ends_with("must not contain the card's number"),
                    "{number}: {errors:?}"
                );
            }
            payment(&with(full(), pointer, json!("card 4000 0000 0000 0002")));
        }
        let named = with(full(), "/metadata", json!({"4242424242424242": "x"}));
        assert_eq!(
            errors(&named),
            ["metadata must not contain the card's number"]
        );
    }

    #[test]
    fn neither_errors_nor_debug_repeat_number_or_code() {
        let shown = format!("{:?}", payment(&full()));
        assert!(
            shown.contains("Pan(****4242)") && shown.contains("Cvv(***)"),
            "{shown}"
        );
        assert!(
            !shown.contains("424242") && !shown.contains("987"),
            "{shown}"
        );
        let wrong = with(
            full(),
            "/paymentMethod/details/cardNumber",
            json!("4242424242424241"),
        );
        let wrong = with(wrong, "/paymentMethod/details/cvv", json!("98765"));
        let shown = format!("{:?}", parse(&wrong).expect_err("a wrong number"));
        assert!(
            !shown.contains("424242") && !shown.contains("987"),
            "{shown}"
        );
    }
}
