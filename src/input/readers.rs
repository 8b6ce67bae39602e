//! Readers of single fields, to be passed to [`Fields::required`](super::Fields::required).

use std::ops::RangeInclusive;

use super::value::{Fault, Kind, Value};

/// One line of text: a string with a number of characters in this range, without control characters.
pub fn text(length: RangeInclusive<usize>) -> impl FnOnce(Value<'_>) -> Result<String, Fault> {
    move |value| checked_text(value, &length, char::is_control)
}

/// Like [`text`], but with line breaks and tabs allowed.
pub fn multiline_text(
    length: RangeInclusive<usize>,
) -> impl FnOnce(Value<'_>) -> Result<String, Fault> {
    move |value| {
        checked_text(value, &length, |c| {
            c.is_control() && !matches!(c, '\n' | '\r' | '\t')
        })
    }
}

/// An identifier: a string with a number of visible ASCII characters in this range.
pub fn token(length: RangeInclusive<usize>) -> impl FnOnce(Value<'_>) -> Result<String, Fault> {
    move |value| {
        let token = value.string()?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be visible ASCII characters".into());
        }
        check_length(&token, &length)?;
        Ok(token.into_owned())
    }
}

/// `true` or `false`.
pub fn boolean(value: Value<'_>) -> Result<bool, Fault> {
    match value.json() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

/// A string that `parse` accepts. `names` lists them for the error: `AUTOMATIC or MANUAL`.
pub fn named<T>(
    names: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> impl FnOnce(Value<'_>) -> Result<T, Fault> {
    move |value| parse(&value.string()?).ok_or_else(|| format!("must be {names}").into())
}

/// A whole number, as a JSON number or a string of digits. It may have leading zeros, up to the number of digits of the range's
/// end: `12`, `"12"` or `"09"` in `1..=12`.
pub fn whole_number(range: RangeInclusive<u16>) -> impl FnOnce(Value<'_>) -> Result<u16, Fault> {
    move |value| {
        let text = value.number_or_string()?;
        let max_digits = range.end().to_string().len();
        let plain = text.len() <= max_digits && text.bytes().all(|byte| byte.is_ascii_digit());
        // u16's own parser would take "+9".
        plain
            .then(|| text.parse().ok())
            .flatten()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!(
                    "must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                )
                .into()
            })
    }
}

/// A decimal, as a JSON number or a string. Its exact text is passed to `parse`, whose error is the message.
pub fn decimal_text<T, E: std::fmt::Display>(
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> impl FnOnce(Value<'_>) -> Result<T, Fault> {
    move |value| match value.kind() {
        Kind::Number | Kind::String => {
            parse(&value.number_or_string()?).map_err(|error| error.to_string().into())
        }
        _ => Err("must be a number or a decimal string".into()),
    }
}

fn checked_text(
    value: Value<'_>,
    length: &RangeInclusive<usize>,
    refused: impl Fn(char) -> bool,
) -> Result<String, Fault> {
    let text = value.string()?;
    check_length(&text, length)?;
    if text.chars().any(refused) {
        return Err("must not contain control characters".into());
    }
    Ok(text.into_owned())
}

fn check_length(text: &str, length: &RangeInclusive<usize>) -> Result<(), Fault> {
    if length.contains(&text.chars().count()) {
        return Ok(());
    }
    Err(match length.start() {
        0 => format!("must have at most {} characters", length.end()),
        start => format!("must have {start} to {} characters", length.end()),
    }
    .into())
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// The result of a reader: the Debug form of the value, or the message.
    fn outcome<T: Debug>(json: &str, read: impl FnOnce(Value<'_>) -> Result<T, Fault>) -> String {
        match read(Value::new(serde_json::from_str(json).expect(json))) {
            Ok(taken) => format!("{taken:?}"),
            Err(Fault::Invalid(message)) => message.into_owned(),
            Err(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn text_is_counted_in_characters_and_has_no_control_characters() {
        let rows = [
            (r#""ab""#, r#""ab""#),
            (r#""é€😀""#, r#""é€😀""#),
            (r#""""#, "must have 1 to 3 characters"),
            (r#""abcd""#, "must have 1 to 3 characters"),
            (r#""a\u0000""#, "must not contain control characters"),
            (r#""a\n""#, "must not contain control characters"),
            (r#""a\u007f""#, "must not contain control characters"),
            (r#""\ud800""#, "NotUnicode"),
            ("1", "must be a string"),
        ];
        for (json, expected) in rows {
            assert_eq!(outcome(json, text(1..=3)), expected, "{json}");
        }
        assert_eq!(outcome(r#""""#, text(0..=3)), r#""""#);
        assert_eq!(
            outcome(r#""abcd""#, text(0..=3)),
            "must have at most 3 characters"
        );
    }

    #[test]
    fn multiline_text_may_have_line_breaks_and_tabs() {
        assert_eq!(
            outcome(r#""a\r\n\tb""#, multiline_text(1..=9)),
            r#""a\r\n\tb""#
        );
        for json in [r#""\u0000""#, r#""\u001b""#, r#""\u0085""#] {
            assert_eq!(
                outcome(json, multiline_text(1..=9)),
                "must not contain control characters",
                "{json}"
            );
        }
    }

    #[test]
    fn a_token_is_visible_ascii() {
        let rows = [
            (r#""a~!""#, r#""a~!""#),
            (r#""""#, "must have 1 to 3 characters"),
            (r#""abcd""#, "must have 1 to 3 characters"),
            (r#""a b""#, "must be visible ASCII characters"),
            (r#""é""#, "must be visible ASCII characters"),
            (r#""\u0000""#, "must be visible ASCII characters"),
        ];
        for (json, expected) in rows {
            assert_eq!(outcome(json, token(1..=3)), expected, "{json}");
        }
    }

    #[test]
    fn a_whole_number_is_a_number_or_a_string_of_digits() {
        let refused = "must be a whole number from 1 to 12";
        let rows = [
            ("1", "1"),
            ("12", "12"),
            (r#""1""#, "1"),
            (r#""01""#, "1"),
            (r#""12""#, "12"),
            ("0", refused),
            ("13", refused),
            ("-1", refused),
            ("1.0", refused),
            ("1e0", refused),
            ("100", refused),
            (r#""""#, refused),
            (r#""00""#, refused),
            (r#""001""#, refused),
            (r#""+1""#, refused),
            (r#"" 1""#, refused),
            (r#""\u0661""#, refused),
            ("99999999999999999999", refused),
            ("true", "must be a number or a string"),
        ];
        for (json, expected) in rows {
            assert_eq!(outcome(json, whole_number(1..=12)), expected, "{json}");
        }
    }

    #[test]
    fn a_decimal_goes_to_its_parser_as_written() {
        let parse = |text: &str| {
            if text.len() < 9 {
                Ok(text.to_owned())
            } else {
                Err("is too long")
            }
        };
        let rows = [
            ("1.50", r#""1.50""#),
            ("1e400", r#""1e400""#),
            (r#""1.50""#, r#""1.50""#),
            ("0.1000000", "is too long"),
            ("true", "must be a number or a decimal string"),
            ("[1]", "must be a number or a decimal string"),
        ];
        for (json, expected) in rows {
            assert_eq!(outcome(json, decimal_text(parse)), expected, "{json}");
        }
    }

    #[test]
    fn a_name_is_one_that_is_known() {
        let read = || {
            named("YES or NO", |name| {
                ["YES", "NO"].iter().position(|known| *known == name)
            })
        };
        assert_eq!(outcome(r#""NO""#, read()), "1");
        assert_eq!(outcome(r#""no""#, read()), "must be YES or NO");
        assert_eq!(outcome("true", read()), "must be a string");
    }
}
