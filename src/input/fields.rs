use std::fmt;

use super::InputError;
use super::object::{Entry, entries_of, parse_body};
use super::problems::{Problems, Rejected, shown};
use super::value::{Fault, Kind, Value};

/// Maximum number of unknown fields that the errors of one object name, so that a reply stays small whatever was sent.
const MAX_UNKNOWN_NAMED: usize = 20;

/// Reads a body that must be one JSON object: `read` takes its fields, and the fields that are left are unknown.
///
/// # Errors
///
/// [`InputError::Malformed`] if the body, or a string in it that was read, is not JSON text in UTF-8;
/// [`InputError::Invalid`] with the error of every field.
pub fn read_object<T>(
    body: &[u8],
    read: impl FnOnce(&mut Fields<'_, '_>) -> Result<T, Rejected>,
) -> Result<T, InputError> {
    let entries = parse_body(body).map_err(InputError::Malformed)?;
    let mut problems = Problems::default();
    let outcome = Fields::read(entries, &mut problems, read);
    match (problems.malformed, outcome) {
        (Some(detail), _) => Err(InputError::Malformed(detail)),
        (None, Ok(value)) if problems.errors.is_empty() => Ok(value),
        (None, _) => Err(InputError::Invalid(problems.errors)),
    }
}

/// Like [`read_object`], but an empty body counts as `{}`.
///
/// # Errors
///
/// As for [`read_object`].
pub fn read_optional_object<T>(
    body: &[u8],
    read: impl FnOnce(&mut Fields<'_, '_>) -> Result<T, Rejected>,
) -> Result<T, InputError> {
    let is_empty = body.trim_ascii().is_empty();
    read_object(if is_empty { b"{}" } else { body }, read)
}

/// An object's fields, taken one by one by name. `null` counts as absent.
pub struct Fields<'de, 'p> {
    entries: Vec<Entry<'de>>,
    pub(super) problems: &'p mut Problems,
}

impl<'de> Fields<'de, '_> {
    fn read<T>(
        entries: Vec<Entry<'de>>,
        problems: &mut Problems,
        read: impl FnOnce(&mut Fields<'de, '_>) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        let mut fields = Fields { entries, problems };
        let outcome = read(&mut fields);
        fields.reject_unknown();
        outcome
    }

    /// Records an error on a field that was read already, such as one that only shows in combination with other fields.
    pub fn reject(&mut self, name: &'static str, message: impl fmt::Display) -> Rejected {
        self.problems.invalid(name, message.to_string())
    }

    /// Takes a field that must be present.
    ///
    /// # Errors
    ///
    /// The error is recorded if the field is absent, occurs twice, or is not accepted by `read`.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value<'de>) -> Result<T, Fault>,
    ) -> Result<T, Rejected> {
        self.optional(name, read)?
            .ok_or_else(|| self.reject(name, "is required"))
    }

    /// Takes a field that may be absent.
    ///
    /// # Errors
    ///
    /// The error is recorded if the field occurs twice, or is not accepted by `read`.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value<'de>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Rejected> {
        self.take(name)?
            .map(read)
            .transpose()
            .map_err(|fault| self.problems.fault(name, fault))
    }

    /// Takes an object that must be present; `read` takes its fields.
    ///
    /// # Errors
    ///
    /// As for [`Fields::required`].
    pub fn required_object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'de, '_>) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        self.optional_object(name, read)?
            .ok_or_else(|| self.reject(name, "is required"))
    }

    /// Takes an object that may be absent; `read` takes its fields.
    ///
    /// # Errors
    ///
    /// As for [`Fields::optional`].
    pub fn optional_object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'de, '_>) -> Result<T, Rejected>,
    ) -> Result<Option<T>, Rejected> {
        let Some(entries) = self.optional(name, entries_of)? else {
            return Ok(None);
        };
        self.problems.path.push(name);
        let outcome = Fields::read(entries, self.problems, read);
        self.problems.path.pop();
        outcome.map(Some)
    }

    fn take(&mut self, name: &'static str) -> Result<Option<Value<'de>>, Rejected> {
        let mut found = self.entries.iter_mut().filter(|entry| entry.name == name);
        let first = found.next().map(|entry| entry.take());
        let twice = found.map(|entry| entry.take()).count() > 0;
        if twice {
            return Err(self.reject(name, "is given more than once"));
        }
        Ok(first.filter(|value| value.kind() != Kind::Null))
    }

    fn reject_unknown(&mut self) {
        let mut unknown = self.entries.iter().filter(|entry| !entry.taken);
        for entry in unknown.by_ref().take(MAX_UNKNOWN_NAMED) {
            self.problems
                .invalid(&shown(&entry.name), "is not a known field");
        }
        let more = unknown.count();
        if more > 0 {
            self.problems
                .invalid("…", format!("and {more} more are not known fields"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::input::text;

    #[derive(Debug, PartialEq)]
    struct Order {
        id: String,
        note: Option<String>,
        buyer: Option<String>,
    }

    fn read(body: &[u8]) -> Result<Order, InputError> {
        read_object(body, |fields| {
            let id = fields.required("id", text(1..=5));
            let note = fields.optional("note", text(0..=5));
            let buyer = fields.optional_object("buyer", |buyer| {
                buyer.required_object("contact", |contact| contact.required("name", text(1..=5)))
            });
            Ok(Order {
                id: id?,
                note: note?,
                buyer: buyer?,
            })
        })
    }

    fn errors(body: &str) -> Vec<String> {
        match read(body.as_bytes()) {
            Err(InputError::Invalid(errors)) => errors
                .into_iter()
                .map(|error| format!("{} {}", error.field, error.message))
                .collect(),
            other => panic!("{body:.100}: {other:?}"),
        }
    }

    fn malformed(body: impl AsRef<[u8]>) -> String {
        match read(body.as_ref()) {
            Err(InputError::Malformed(detail)) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_come_in_any_order_and_null_is_absent() {
        let order = |note: Option<&str>, buyer: Option<&str>| Order {
            id: "a".to_owned(),
            note: note.map(str::to_owned),
            buyer: buyer.map(str::to_owned),
        };
        let rows = [
            (r#"{"id":"a"}"#, order(None, None)),
            (r#" { "note" : "n" , "id" : "a" } "#, order(Some("n"), None)),
            (r#"{"id":"a","note":null,"buyer":null}"#, order(None, None)),
            (r#"{"\u0069d":"\u0061"}"#, order(None, None)),
            (
                r#"{"buyer":{"contact":{"name":"b"}},"id":"a"}"#,
                order(None, Some("b")),
            ),
        ];
        for (body, expected) in rows {
            assert_eq!(read(body.as_bytes()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn all_errors_come_at_once_with_their_paths() {
        assert_eq!(
            errors(r#"{"note":7,"buyer":{"contact":{"nick":1},"x.y":2},"extra":{"deep":[]}}"#),
            [
                "id is required",
                "note must be a string",
                "buyer.contact.name is required",
                "buyer.contact.nick is not a known field",
                "buyer.x.y is not a known field",
                "extra is not a known field",
            ]
        );
        assert_eq!(
            errors(r#"{"id":null,"buyer":[]}"#),
            ["id is required", "buyer must be an object"]
        );
        assert_eq!(
            errors(r#"{"id":"a","buyer":{}}"#),
            ["buyer.contact is required"]
        );
    }

    #[test]
    fn a_field_given_twice_is_an_error_even_with_one_value() {
        let rows = [
            (r#"{"id":"a","id":"a"}"#, "id is given more than once"),
            (
                r#"{"id":"a","note":null,"note":"n"}"#,
                "note is given more than once",
            ),
            (r#"{"id":"a","i\u0064":"b"}"#, "id is given more than once"),
            (
                r#"{"id":"a","buyer":{"contact":{"name":"b","name":"c"}}}"#,
                "buyer.contact.name is given more than once",
            ),
        ];
        for (body, error) in rows {
            assert_eq!(errors(body), [error]);
        }
    }

    #[test]
    fn what_is_no_json_object_in_utf_8_is_malformed() {
        let rows: [(&[u8], &str); 16] = [
            (b"", "it is empty"),
            (b" \n", "it is empty"),
            (b"[]", "it does not begin with `{`"),
            (b"\"4242424242424242\"", "it does not begin with `{`"),
            (b"null", "it does not begin with `{`"),
            (b"\xef\xbb\xbf{}", "it does not begin with `{`"),
            (b"{\"id\":\"\xff\"}", "no UTF-8 after byte 7"),
            (b"{", "EOF while parsing an object at line 1 column 1"),
            (
                b"{\"id\":\"a\"",
                "EOF while parsing an object at line 1 column 9",
            ),
            (b"{\"id\":\"a\",}", "trailing comma at line 1 column 11"),
            (
                b"{\"id\":\"a\"} x",
                "trailing characters at line 1 column 12",
            ),
            (
                b"{\"id\":\"a\"}{}",
                "trailing characters at line 1 column 11",
            ),
            (b"{\n\"id\":01}", "invalid number at line 2 column 7"),
            (b"{\"id\":NaN}", "expected value at line 1 column 7"),
            (
                b"{\"x\":\"a\nb\"}",
                "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 7",
            ),
            (b"{id:1}", "key must be a string at line 1 column 2"),
        ];
        for (body, detail) in rows {
            assert_eq!(malformed(body), detail, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_lone_surrogate_is_malformed_wherever_it_is_read() {
        assert_eq!(
            malformed(r#"{"id":"\ud800"}"#),
            "`id` has an escape that is no Unicode character"
        );
        assert_eq!(
            malformed(r#"{"id":"a","buyer":{"contact":{"name":"\udc00"}}}"#),
            "`buyer.contact.name` has an escape that is no Unicode character"
        );
        assert_eq!(
            malformed(r#"{"id":"a","buyer":{"\ud800":1}}"#),
            "`buyer` has an escape that is no Unicode character"
        );
        malformed(r#"{"\ud800":1}"#);
    }

    #[test]
    fn deep_nesting_is_skipped_without_recursion() {
        let start = Instant::now();
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = open.repeat(20_000);
            let closed = format!("{deep}1{}", close.repeat(20_000));
            malformed(&deep);
            malformed(format!(r#"{{"id":{deep}"#));
            malformed(format!(r#"{{"buyer":{{"contact":{deep}"#));
            assert_eq!(
                errors(&format!(r#"{{"id":{closed}}}"#)),
                ["id must be a string"]
            );
            assert_eq!(
                errors(&format!(r#"{{"id":"a","x":{closed}}}"#)),
                ["x is not a known field"]
            );
            let inside = errors(&format!(
                r#"{{"id":"a","buyer":{{"contact":{{"name":{closed}}}}}}}"#
            ));
            assert_eq!(inside, ["buyer.contact.name must be a string"]);
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }

    #[test]
    fn a_reply_to_many_unknown_fields_stays_small() {
        let body = |count: usize| {
            let fields: Vec<String> = (0..count).map(|n| format!(r#""f{n}":0"#)).collect();
            format!(r#"{{"id":"a",{}}}"#, fields.join(","))
        };
        assert_eq!(errors(&body(20)).len(), 20);
        assert_eq!(
            errors(&body(20)).last().expect("an error"),
            "f19 is not a known field"
        );
        assert_eq!(errors(&body(21)).len(), 21);
        assert_eq!(
            errors(&body(5_000)).last().expect("an error"),
            "… and 4980 more are not known fields"
        );
    }

    #[test]
    fn an_empty_body_is_an_empty_object_where_that_is_allowed() {
        let read =
            |body: &[u8]| read_optional_object(body, |fields| fields.optional("id", text(1..=5)));
        for body in [&b""[..], b" \r\n", b"{}"] {
            assert_eq!(read(body), Ok(None));
        }
        assert_eq!(read(br#"{"id":"a"}"#), Ok(Some("a".to_owned())));
        assert!(matches!(read(b"null"), Err(InputError::Malformed(_))));
    }
}
