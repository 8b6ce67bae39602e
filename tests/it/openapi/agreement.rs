//! The document and the service agree on each field: both accept the same values.
//!
//! Bodies are made from the document: an example with each field replaced by each of many values, among them those at the field's
//! own limits. What JSON Schema cannot say is in one list, [`SAID_IN_WORDS`].

use std::collections::BTreeSet;

use payonce::input::InputError;
use payonce::payments::{CancelRequest, CaptureRequest, NewPayment, RefundRequest};
use serde_json::{Map, Value, json};

use super::document::Document;

/// Refusals of values that match the schema: checks of a sum, of a list of codes, or of two fields together.
const SAID_IN_WORDS: [&str; 7] = [
    "is not a valid card number",
    "must be an ISO 4217 code in upper case, such as USD",
    "must not contain the card's number",
    "must be the gateway's token, not a card number",
    "must be the gateway's customer, not a card number",
    "must be at most 9999999999999.99",
    "must have at most 2 decimals",
];

type Parse = fn(&[u8]) -> Result<(), InputError>;

/// The calls with a body, by operation, and the function that reads it.
fn readers() -> [(&'static str, Parse); 4] {
    [
        ("create_payment", |body| NewPayment::parse(body).map(drop)),
        ("capture_payment", |body| {
            CaptureRequest::parse(body).map(drop)
        }),
        ("cancel_payment", |body| {
            CancelRequest::parse(body).map(drop)
        }),
        ("refund_payment", |body| {
            RefundRequest::parse(body).map(drop)
        }),
    ]
}

/// Values of every kind, some of which each field accepts.
fn values() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "a",
        "é",
        "a b",
        "a\nb",
        "a\tb",
        "a\0b",
        "a\u{7f}b",
        "a\u{85}b",
        "a@b",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        "a@b\u{a0}",
        "0",
        "0.0",
        "0e5",
        "00.1",
        "01",
        "1",
        "1.",
        ".5",
        "1.5",
        "1.50",
        "1.500",
        "1e0",
        "1E+1",
        "-1",
        "+1",
        "0.01",
        "12",
        "09",
        "013",
        "13",
        "2031",
        "1999",
        "2100",
        "31",
        "123",
        "1234",
        "12345",
        "12a",
        "USD",
        "usd",
        "EURO",
        "XXX",
        "CARD",
        "AUTOMATIC",
        "manual",
        "MANUAL",
        "pm_card_visa",
        "4242424242424242",
        "4242-4242 4242-4242",
        "4242  424242424242",
        "4242_4242_4242_4242",
        "424242424242424",
        "000000000000",
        "42424242424242424242",
    ];
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(12),
        json!(13),
        json!(123),
        json!(2031),
        json!(2100),
        json!(-1),
        json!(1.5),
        json!(0.001),
        json!([]),
        json!(["a"]),
        json!({}),
        json!({"a": "b"}),
        json!({"": "b"}),
        json!({"a\n": "b"}),
        json!({"a": "b\nc", "é": ""}),
        json!({"a": "\0"}),
        json!({"a": null}),
        json!({"a": 1}),
    ];
    texts.into_iter().map(Value::from).chain(others).collect()
}

/// Values at a field's own limits, and one beyond.
fn at_limits(schema: &Value) -> Vec<Value> {
    let lengths = ["minLength", "maxLength"].map(|name| schema[name].as_u64());
    let around = |length: u64| [length.saturating_sub(1), length, length + 1];
    let lengths = lengths.into_iter().flatten().flat_map(around);
    let text = |length: u64| "a".repeat(usize::try_from(length).expect("a length"));
    let texts = lengths.clone().map(|length| json!(text(length)));
    let emails = lengths.map(|length| json!(text(length.saturating_sub(2)) + "@b"));
    let bounds = ["minimum", "maximum"].map(|name| schema[name].as_i64());
    let numbers = bounds.into_iter().flatten();
    let numbers = numbers.flat_map(|bound| [bound - 1, bound, bound + 1].map(Value::from));
    let names = schema["propertyNames"]["maxLength"].as_u64().into_iter();
    let names = names
        .flat_map(around)
        .map(|length| json!({text(length): ""}));
    let entries = schema["maxProperties"]
        .as_u64()
        .into_iter()
        .flat_map(around);
    let entries = entries.map(|count| {
        (0..count)
            .map(|n| (n.to_string(), json!("")))
            .collect::<Map<_, _>>()
    });
    texts
        .chain(emails)
        .chain(numbers)
        .chain(names)
        .chain(entries.map(Value::Object))
        .collect()
}

/// The paths of all fields below a schema, as far as objects reach, with their schemas.
fn fields<'a>(document: &'a Document, schema: &'a Value) -> Vec<(Vec<String>, &'a Value)> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), schema)];
    while let Some((path, schema)) = open.pop() {
        let schema = document.resolve(schema);
        for either in schema["oneOf"].as_array().into_iter().flatten() {
            open.push((path.clone(), either));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = [path.as_slice(), std::slice::from_ref(name)].concat();
            open.push((path, property));
        }
        found.push((path, schema));
    }
    found
}

/// The body with one field replaced, or taken away. `None`: the body has no object for it.
fn replaced(body: &Value, path: &[String], value: Option<&Value>) -> Option<Value> {
    let mut body = body.clone();
    let Some((name, parents)) = path.split_last() else {
        return value.cloned();
    };
    let mut parent = &mut body;
    for name in parents {
        parent = parent.get_mut(name)?;
    }
    let parent = parent.as_object_mut()?;
    match value {
        Some(value) => drop(parent.insert(name.clone(), value.clone())),
        None => drop(parent.remove(name)),
    }
    Some(body)
}

/// The service's result for a body.
#[derive(Debug)]
enum Read {
    Taken,
    /// Only for rules that the schema cannot express, whose values may match it or not.
    RefusedInWords,
    Refused,
}

fn read(parse: Parse, body: &Value) -> Read {
    let is_in_words = |message: &str| SAID_IN_WORDS.iter().any(|words| message.starts_with(words));
    match parse(body.to_string().as_bytes()) {
        Ok(()) => Read::Taken,
        Err(InputError::Invalid(errors))
            if errors.iter().all(|error| is_in_words(&error.message)) =>
        {
            Read::RefusedInWords
        }
        Err(_) => Read::Refused,
    }
}

#[test]
fn what_the_document_allows_is_taken_and_what_it_forbids_is_refused() {
    let document = Document::strict();
    let (mut taken, mut refused) = (0, 0);
    let mut differences = BTreeSet::new();
    for (operation, parse) in readers() {
        let call = document.call(operation);
        let schema = &call.operation["requestBody"]["content"]["application/json"]["schema"];
        let validator = document.validator(schema);
        let examples = document.request_examples(&call);
        let examples = examples.into_iter().map(|(_, body)| body.clone());
        for example in examples.chain([json!({})]) {
            for (path, field) in fields(&document, schema) {
                let values = values().into_iter().chain(at_limits(field)).map(Some);
                for value in values.chain([None]) {
                    let Some(body) = replaced(&example, &path, value.as_ref()) else {
                        continue;
                    };
                    match (validator.is_valid(&body), read(parse, &body)) {
                        (true, Read::Taken) => taken += 1,
                        (false, Read::Refused) => refused += 1,
                        (_, Read::RefusedInWords) => {}
                        (fits, read) => {
                            let path = path.join(".");
                            differences.insert(format!(
                                "{operation} {path} {value:?}: fits {fits}, {read:?}"
                            ));
                        }
                    }
                }
            }
        }
    }
    let shown: Vec<_> = differences.iter().take(20).collect();
    assert!(
        differences.is_empty(),
        "{} differences: {shown:#?}",
        differences.len()
    );
    assert!(
        taken > 500 && refused > 2_000,
        "{taken} taken, {refused} refused"
    );
}
