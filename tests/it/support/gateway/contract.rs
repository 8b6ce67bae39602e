//! Stripe's published types for each call that payonce makes: the gateway refuses everything else, and answers with published
//! fields only. `make contract` updates them from the npm package `stripe`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::Endpoint;
use super::form::Params;
use super::reply::ApiError;

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let text = include_str!("../../../../src/gateway/stripe/contract/contract.json");
    serde_json::from_str(text).expect("the contract")
});

/// Field names as Stripe's form encoding has them: `card[number]`, `metadata[*]`.
type Fields = BTreeMap<String, Field>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contract {
    api_version: String,
    requests: BTreeMap<String, Fields>,
    answers: BTreeMap<String, Fields>,
}

#[derive(Deserialize)]
struct Field {
    #[serde(rename = "type")]
    kinds: Vec<String>,
    #[serde(default)]
    required: bool,
    /// The values that an enumeration has, where it is one.
    #[serde(default)]
    values: Vec<String>,
}

/// The version of the API that the contract is of.
pub(super) fn api_version() -> &'static str {
    &CONTRACT.api_version
}

/// Refuses what the contract does not have, in Stripe's words.
pub(super) fn check(endpoint: Endpoint, params: &Params) -> Result<(), ApiError> {
    let fields = &CONTRACT.requests[endpoint.call()];
    for (name, value) in params.pairs() {
        let Some((published, is_element)) = published_name(fields, name) else {
            let error = ApiError::invalid(format!("Received unknown parameter: {name}"));
            return Err(error.code("parameter_unknown").param(name));
        };
        fields[&published].check(name, value, is_element)?;
    }
    let is_there = |name: &str| {
        params
            .pairs()
            .iter()
            .any(|(given, _)| given == name || given.starts_with(&format!("{name}[")))
    };
    for (name, _) in fields.iter().filter(|(_, field)| field.required) {
        let is_asked_for = match name.rsplit_once('[') {
            Some((parent, _)) => is_there(parent),
            None => true,
        };
        if is_asked_for && !is_there(name) {
            let error = ApiError::invalid(format!("Missing required param: {name}."));
            return Err(error.code("parameter_missing").param(name));
        }
    }
    Ok(())
}

/// The name under which the contract has a parameter, and whether it is an element of an array.
fn published_name(fields: &Fields, name: &str) -> Option<(String, bool)> {
    if fields.contains_key(name) {
        return Some((name.to_owned(), false));
    }
    let (parent, last) = name.strip_suffix(']')?.rsplit_once('[')?;
    let is_array = fields
        .get(parent)
        .is_some_and(|field| field.has("array") && last.bytes().all(|b| b.is_ascii_digit()));
    if is_array {
        return Some((parent.to_owned(), true));
    }
    let any = format!("{parent}[*]");
    fields.contains_key(&any).then_some((any, false))
}

impl Field {
    fn has(&self, kind: &str) -> bool {
        self.kinds.iter().any(|k| k == kind)
    }

    fn check(&self, name: &str, value: &str, is_element: bool) -> Result<(), ApiError> {
        if !is_element
            && !["string", "number", "boolean", "empty"]
                .iter()
                .any(|k| self.has(k))
        {
            return Err(
                ApiError::invalid(format!("Invalid {}", self.kinds.join(" or "))).param(name),
            );
        }
        if value.is_empty() && !self.has("empty") {
            let error = ApiError::invalid(format!(
                "You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter; \
                 however '{name}' cannot be unset."
            ));
            return Err(error.code("parameter_invalid_empty").param(name));
        }
        let is_flag = self.has("boolean") && matches!(value, "true" | "false");
        if is_flag || value.is_empty() {
            return Ok(());
        }
        if !self.values.is_empty() {
            return match self.values.iter().any(|v| v == value) {
                true => Ok(()),
                false => {
                    let allowed = self.values.join(", ");
                    let message = format!("Invalid {name}: must be one of {allowed}");
                    Err(ApiError::invalid(message).param(name))
                }
            };
        }
        match self.kinds.as_slice() {
            [kind] if kind == "boolean" => {
                Err(ApiError::invalid(format!("Invalid boolean: {value}")).param(name))
            }
            [kind, ..] if kind == "number" && value.parse::<i64>().is_err() => {
                let error = ApiError::invalid(format!("Invalid integer: {value}"));
                Err(error.code("parameter_invalid_integer").param(name))
            }
            _ => Ok(()),
        }
    }
}

/// An object in Stripe's published form: required fields that the gateway does not have are null.
///
/// Panics on a field that Stripe does not publish.
pub(super) fn published(object: Value) -> Value {
    let Value::Object(mut object) = object else {
        panic!("an object: {object}")
    };
    let kind = object["object"].as_str().expect("its kind").to_owned();
    fill(&CONTRACT.answers[&kind], &kind, "", &mut object);
    Value::Object(object)
}

fn fill(fields: &Fields, kind: &str, parent: &str, object: &mut Map<String, Value>) {
    let full = |name: &str| match parent {
        "" => name.to_owned(),
        parent => format!("{parent}[{name}]"),
    };
    for (name, value) in object.iter_mut() {
        let name = full(name);
        assert!(fields.contains_key(&name), "{kind} has no field {name}");
        let has_parts = fields
            .keys()
            .any(|key| key.starts_with(&format!("{name}[")));
        // What has a kind of its own has been looked at already.
        if let Value::Object(inner) = value
            && has_parts
            && !inner.contains_key("object")
        {
            fill(fields, kind, &name, inner);
        }
    }
    for (name, field) in fields.iter().filter(|(_, field)| field.required) {
        let short = match parent {
            "" if !name.contains('[') => name.as_str(),
            "" => continue,
            parent => match name.strip_prefix(&format!("{parent}[")) {
                Some(rest) if rest.matches(']').count() == 1 => rest.trim_end_matches(']'),
                _ => continue,
            },
        };
        let empty = match (name.as_str(), field.kinds.as_slice()) {
            ("metadata", _) => json!({}),
            _ => Value::Null,
        };
        object.entry(short).or_insert(empty);
    }
}
