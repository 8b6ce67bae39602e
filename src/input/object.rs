use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::value::{Fault, Kind, Value};

/// One field of an object. Duplicates are separate fields.
pub(super) struct Entry<'de> {
    pub(super) name: Cow<'de, str>,
    pub(super) value: Value<'de>,
    pub(super) taken: bool,
}

impl<'de> Entry<'de> {
    pub(super) fn take(&mut self) -> Value<'de> {
        self.taken = true;
        self.value
    }
}

/// The fields of a value that must be an object.
pub(super) fn entries_of(value: Value<'_>) -> Result<Vec<Entry<'_>>, Fault> {
    if value.kind() != Kind::Object {
        return Err("must be an object".into());
    }
    // The value is known to be well-formed, except for escapes in its names.
    parse_object(value.json()).map_err(|_| Fault::NotUnicode)
}

/// The fields of a whole body. The error says where it is not a JSON object, and never repeats the input.
pub(super) fn parse_body(body: &[u8]) -> Result<Vec<Entry<'_>>, String> {
    let text = std::str::from_utf8(body)
        .map_err(|error| format!("no UTF-8 after byte {}", error.valid_up_to()))?;
    match text.trim_ascii_start().as_bytes().first() {
        // serde_json's messages about syntax name the place and what was expected, never what was found.
        Some(b'{') => parse_object(text).map_err(|error| error.to_string()),
        Some(_) => Err("it does not begin with `{`".to_owned()),
        None => Err("it is empty".to_owned()),
    }
}

/// Splits an object's text, which is all of `json`, into its fields. Values are skipped over without recursion.
fn parse_object(json: &str) -> Result<Vec<Entry<'_>>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let entries = deserializer.deserialize_map(ObjectVisitor)?;
    deserializer.end()?;
    Ok(entries)
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Vec<Entry<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::with_capacity(8);
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            entries.push(Entry {
                name,
                value: Value::new(value),
                taken: false,
            });
        }
        Ok(entries)
    }
}

/// A field's name; borrowed from the body unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
