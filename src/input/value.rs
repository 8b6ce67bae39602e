use std::borrow::Cow;

use serde_json::value::RawValue;

/// One JSON value, as its text. It is known to be well-formed, except that its `\u` escapes may not stand for characters.
#[derive(Clone, Copy)]
pub struct Value<'de>(&'de RawValue);

/// Why a value is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not valid for its field. Contains the message.
    Invalid(Cow<'static, str>),
    /// It is a string with an escape that does not stand for a character (`"\ud800"`), so the body is not JSON text.
    NotUnicode,
}

impl From<&'static str> for Fault {
    fn from(message: &'static str) -> Self {
        Self::Invalid(message.into())
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Invalid(message.into())
    }
}

/// The type of a JSON value, recognized by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl<'de> Value<'de> {
    pub(super) fn new(raw: &'de RawValue) -> Self {
        Self(raw)
    }

    pub(super) fn json(self) -> &'de str {
        self.0.get()
    }

    pub(super) fn kind(self) -> Kind {
        match self.json().as_bytes().first() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// A string's content; borrowed from the body unless it has escapes.
    ///
    /// # Errors
    ///
    /// `must be a string`, if it is not one.
    pub fn string(self) -> Result<Cow<'de, str>, Fault> {
        if self.kind() == Kind::String {
            self.unescaped()
        } else {
            Err("must be a string".into())
        }
    }

    /// The text of a number as in the body, or the content of a string. It is exact: nothing is parsed as a float.
    ///
    /// # Errors
    ///
    /// `must be a number or a string`, if it is neither.
    pub fn number_or_string(self) -> Result<Cow<'de, str>, Fault> {
        match self.kind() {
            Kind::Number => Ok(Cow::Borrowed(self.json())),
            Kind::String => self.unescaped(),
            _ => Err("must be a number or a string".into()),
        }
    }

    fn unescaped(self) -> Result<Cow<'de, str>, Fault> {
        let json = self.json();
        match json
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        {
            Some(content) if !content.contains('\\') => Ok(Cow::Borrowed(content)),
            _ => serde_json::from_str(json)
                .map(Cow::Owned)
                .map_err(|_| Fault::NotUnicode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value<'_> {
        Value::new(serde_json::from_str(json).expect(json))
    }

    #[test]
    fn a_string_is_borrowed_unless_it_has_escapes() {
        let rows = [
            (r#""plain ü €""#, "plain ü €", true),
            (r#""""#, "", true),
            (r#""a\"b\\\n\u00e9\ud83d\ude00""#, "a\"b\\\né😀", false),
            (r#""\u0000""#, "\0", false),
        ];
        for (json, content, borrowed) in rows {
            let string = value(json).string().expect(json);
            assert_eq!(
                (&*string, matches!(string, Cow::Borrowed(_))),
                (content, borrowed)
            );
        }
    }

    #[test]
    fn a_lone_surrogate_is_no_character() {
        for json in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""a\ud83dx""#,
        ] {
            assert_eq!(value(json).string(), Err(Fault::NotUnicode), "{json}");
        }
    }

    #[test]
    fn numbers_keep_their_text() {
        for json in [
            "1.0",
            "1e400",
            "-0",
            "0.1000",
            "123456789012345678901234567890.5",
            "-1E-7",
        ] {
            assert_eq!(value(json).number_or_string().as_deref(), Ok(json));
        }
        assert_eq!(value(r#""1.0""#).number_or_string().as_deref(), Ok("1.0"));
    }

    #[test]
    fn other_types_are_refused() {
        for json in ["null", "true", "false", "[]", "{}", "1"] {
            assert_eq!(
                value(json).string(),
                Err("must be a string".into()),
                "{json}"
            );
        }
        for json in ["null", "true", "false", "[\"1\"]", "{}"] {
            assert_eq!(
                value(json).number_or_string(),
                Err("must be a number or a string".into()),
                "{json}"
            );
        }
    }
}
