use std::collections::BTreeMap;

use super::fields::Fields;
use super::object::{Entry, entries_of};
use super::problems::{Rejected, shown};
use super::readers::multiline_text;
use super::value::{Fault, Value};

/// The limits of an object whose fields the client chooses. All are inclusive; lengths are in characters.
#[derive(Clone, Copy, Debug)]
pub struct StringMapLimits {
    /// Maximum number of entries.
    pub max_entries: usize,
    /// Maximum length of a name; the minimum is 1.
    pub max_name: usize,
    /// Maximum length of a text.
    pub max_text: usize,
}

impl StringMapLimits {
    fn entries_of(self, value: Value<'_>) -> Result<Vec<Entry<'_>>, Fault> {
        let entries = entries_of(value)?;
        if entries.len() > self.max_entries {
            return Err(format!("must have at most {} entries", self.max_entries).into());
        }
        Ok(entries)
    }

    fn text_of(self, name: &str, value: Value<'_>, given_before: bool) -> Result<String, Fault> {
        if given_before {
            return Err("is given more than once".into());
        }
        if !(1..=self.max_name).contains(&name.chars().count()) {
            return Err(format!("must have a name of 1 to {} characters", self.max_name).into());
        }
        if name.contains(char::is_control) {
            return Err("must have a name without control characters".into());
        }
        multiline_text(0..=self.max_text)(value)
    }
}

impl<'de> Fields<'de, '_> {
    /// Takes an object whose fields the client chooses, and that may be absent: texts by name.
    ///
    /// # Errors
    ///
    /// As for [`Fields::optional`], and for each entry.
    pub fn optional_string_map(
        &mut self,
        name: &'static str,
        limits: StringMapLimits,
    ) -> Result<Option<BTreeMap<String, String>>, Rejected> {
        let Some(entries) = self.optional(name, |value| limits.entries_of(value))? else {
            return Ok(None);
        };
        self.problems.path.push(name);
        let map = self.string_map(entries, limits);
        self.problems.path.pop();
        map.map(Some)
    }

    fn string_map(
        &mut self,
        entries: Vec<Entry<'de>>,
        limits: StringMapLimits,
    ) -> Result<BTreeMap<String, String>, Rejected> {
        let mut map = BTreeMap::new();
        let mut rejected = None;
        for Entry { name, value, .. } in entries {
            match limits.text_of(&name, value, map.contains_key(&*name)) {
                Ok(text) => {
                    map.insert(name.into_owned(), text);
                }
                Err(fault) => rejected = Some(self.problems.fault(&shown(&name), fault)),
            }
        }
        rejected.map_or(Ok(map), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{FieldError, InputError, read_object};

    #[test]
    fn each_entry_of_a_string_map_is_checked() {
        let limits = StringMapLimits {
            max_entries: 3,
            max_name: 2,
            max_text: 4,
        };
        let read = |map: &str| {
            let body = format!(r#"{{"map":{map}}}"#);
            match read_object(body.as_bytes(), |fields| {
                fields.optional_string_map("map", limits)
            }) {
                Ok(map) => map.map(|map| format!("{map:?}")).unwrap_or_default(),
                Err(InputError::Malformed(detail)) => detail,
                Err(InputError::Invalid(errors)) => {
                    let error = |error: FieldError| format!("{} {}", error.field, error.message);
                    errors.into_iter().map(error).collect::<Vec<_>>().join("; ")
                }
            }
        };
        let rows = [
            ("null", ""),
            ("{}", "{}"),
            (
                r#"{"b":"","a":"1\n34","éé":"ééé€"}"#,
                r#"{"a": "1\n34", "b": "", "éé": "ééé€"}"#,
            ),
            (
                r#"{"a":"","b":"","c":"","d":""}"#,
                "map must have at most 3 entries",
            ),
            ("[]", "map must be an object"),
            (
                r#"{"a":1,"abc":"","b":"12345"}"#,
                "map.a must be a string; map.abc must have a name of 1 to 2 characters; map.b must have at most 4 characters",
            ),
            (r#"{"":""}"#, "map. must have a name of 1 to 2 characters"),
            (
                r#"{"\u0000":""}"#,
                "map.* must have a name without control characters",
            ),
            (
                r#"{"a":"\u0000"}"#,
                "map.a must not contain control characters",
            ),
            (r#"{"a":"1","a":"1"}"#, "map.a is given more than once"),
            (
                r#"{"a":"\ud800"}"#,
                "`map.a` has an escape that is no Unicode character",
            ),
        ];
        for (map, expected) in rows {
            assert_eq!(read(map), expected, "{map}");
        }
    }
}
