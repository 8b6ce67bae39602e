//! The digests of a request's fields as a row keeps them: enough to name the fields that differ, and no value.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// 24 bits of a keyed digest over a field's path and value.
pub(super) type Digest = [u8; DIGEST_BYTES];

const DIGEST_BYTES: usize = 3;

/// What a text in the compact form begins with; then the secret's id.
const COMPACT: char = '~';

/// What a text in the form before begins with; then the secret's id. Version 1 has no line for the secret.
const LINES: char = '#';

/// A known path is written as the character that is this far behind [`FIRST_KNOWN`].
const MOST_KNOWN: usize = 64;
const FIRST_KNOWN: u8 = b'0';

/// A field's digest: base64 in the compact form, hexadecimal in lines.
const BASE64_DIGITS: usize = 4;
const HEX_DIGITS: usize = 6;

/// Fields' digests by path.
pub(super) type Digests<'a> = BTreeSet<(Cow<'a, str>, Digest)>;

/// Writes digests: those of known paths in one line of five characters each, the others in a line each with their path.
pub(super) fn write<'a>(
    secret_id: &str,
    known_paths: &[&str],
    digests: impl Iterator<Item = (&'a str, Digest)>,
) -> String {
    let mut line = format!("{COMPACT}{secret_id}\n");
    let mut others = String::new();
    for (path, digest) in digests {
        if let Some(code) = code_of(path, known_paths) {
            line.push(char::from(code));
            URL_SAFE_NO_PAD.encode_string(digest, &mut line);
        } else {
            others.push('\n');
            URL_SAFE_NO_PAD.encode_string(digest, &mut others);
            others.extend(storable(path));
        }
    }
    line + &others
}

/// Writes digests in a line each, without a secret, as version 1 did.
pub(super) fn write_unmarked<'a>(digests: impl Iterator<Item = (&'a str, Digest)>) -> String {
    let lines =
        digests.map(|(path, digest)| hex::encode(digest) + &storable(path).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

/// A path is a client's text where metadata is: keep it on its line, and out of PostgreSQL's way.
fn storable(path: &str) -> impl Iterator<Item = char> {
    path.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
}

/// The id of the secret that signed. Returns `None` if the text does not say.
pub(super) fn secret_id(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix([COMPACT, LINES])
}

/// Reads either form. A known path that is not known here, because a newer process wrote it, is left out.
pub(super) fn read<'a>(text: &'a str, known_paths: &[&'static str]) -> Digests<'a> {
    let mut lines = text.lines();
    if !text.starts_with(COMPACT) {
        let lines = lines.filter(|line| !line.starts_with(LINES));
        return lines.filter_map(hex_line).collect();
    }
    let known = lines.nth(1).unwrap_or_default();
    let items = known.as_bytes().chunks_exact(1 + BASE64_DIGITS);
    let items = items.filter_map(|item| {
        let (code, digits) = item.split_first()?;
        let path = known_paths.get(usize::from(code.checked_sub(FIRST_KNOWN)?))?;
        Some((Cow::Borrowed(*path), from_base64(digits)?))
    });
    let others = lines.filter_map(|line| {
        let (digits, path) = line.split_at_checked(BASE64_DIGITS)?;
        Some((Cow::Borrowed(path), from_base64(digits.as_bytes())?))
    });
    items.chain(others).collect()
}

fn hex_line(line: &str) -> Option<(Cow<'_, str>, Digest)> {
    let (digits, path) = line.split_at_checked(HEX_DIGITS)?;
    let mut digest = Digest::default();
    hex::decode_to_slice(digits, &mut digest).ok()?;
    Some((Cow::Borrowed(path), digest))
}

fn from_base64(digits: &[u8]) -> Option<Digest> {
    // One byte more: the decoder estimates its output's length generously.
    let mut digest = [0; DIGEST_BYTES + 1];
    let length = URL_SAFE_NO_PAD.decode_slice(digits, &mut digest).ok()?;
    digest.get(..length)?.try_into().ok()
}

fn code_of(path: &str, known_paths: &[&str]) -> Option<u8> {
    let mut known = known_paths.iter().take(MOST_KNOWN);
    let at = known.position(|known| *known == path)?;
    FIRST_KNOWN.checked_add(u8::try_from(at).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["amount", "currency"];
    const FIELDS: [(&str, Digest); 3] = [
        ("amount", [0xb1, 0x4b, 0xfe]),
        ("currency", [0, 0, 0]),
        ("meta.a\nb", [0x7c, 0x8b, 0xc0]),
    ];

    fn as_read(fields: &[(&'static str, Digest)]) -> Digests<'static> {
        let fields = fields.iter().map(|(path, digest)| {
            let path: String = storable(path).collect();
            (Cow::Owned(path), *digest)
        });
        fields.collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let compact = write("5e993171", &KNOWN, FIELDS.into_iter());
        assert_eq!(compact, "~5e993171\n0sUv-1AAAA\nfIvAmeta.a\u{fffd}b");
        assert_eq!(secret_id(&compact), Some("5e993171"));
        assert_eq!(read(&compact, &KNOWN), as_read(&FIELDS));
        let none_known = write("5e993171", &[], FIELDS.into_iter());
        assert_eq!(read(&none_known, &[]), as_read(&FIELDS));
    }

    #[test]
    fn the_forms_before_are_read() {
        let lines = write_unmarked(FIELDS.into_iter());
        assert_eq!(lines, "b14bfeamount\n000000currency\n7c8bc0meta.a\u{fffd}b");
        assert_eq!(secret_id(&lines), None);
        assert_eq!(read(&lines, &KNOWN), as_read(&FIELDS));
        let named = format!("#5e993171\n{lines}");
        assert_eq!(secret_id(&named), Some("5e993171"));
        assert_eq!(read(&named, &KNOWN), as_read(&FIELDS));
    }

    #[test]
    fn what_only_a_newer_process_knows_is_left_out() {
        let compact = write("5e993171", &KNOWN, FIELDS.into_iter());
        let known_here = read(&compact, &KNOWN[..1]);
        assert_eq!(known_here, as_read(&[FIELDS[0], FIELDS[2]]));
    }

    #[test]
    fn nonsense_has_no_fields() {
        for text in [
            "",
            "~",
            "~5e993171",
            "~5e993171\n0sU\nfI",
            "#",
            "zz",
            "~5e993171\n\u{7f}????",
        ] {
            assert_eq!(read(text, &KNOWN), Digests::new(), "{text}");
        }
    }
}
