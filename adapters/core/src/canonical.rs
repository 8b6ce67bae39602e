//! The canonical form of a body: the leaves of a JSON document, whatever its white space and the order of its members; the bytes of
//! anything else.
//!
//! A number is taken as it is spelled, because `1e23` and its neighbours are one and the same to a parser that makes a float of
//! them. A `null` is not an absent member here, because a handler may tell them apart. A document with a name twice in one object is
//! taken by its bytes, because parsers disagree about it.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

/// Maximum number of a document's leaves that are signed one by one, so that a mismatch can name them. A larger document is signed
/// as one digest: the names are stored with the key.
const MOST_LEAVES: usize = 64;

/// Maximum length of the names of all leaves together, in bytes.
const MOST_NAMES: usize = 4096;

/// serde_json's own bound on nesting. A deeper document is taken by its bytes.
const DEEPEST: usize = 128;

/// The path of the whole body.
const BODY: &str = "body";

/// A body's fields, as path and value.
pub(crate) fn fields_of(body: &[u8], is_json: bool, unsigned: &[String]) -> Vec<(String, String)> {
    if body.is_empty() {
        return Vec::new();
    }
    let leaves = is_json.then(|| leaves_of(body, unsigned)).flatten();
    leaves.unwrap_or_else(|| {
        let digest: [u8; 32] = Sha256::digest(body).into();
        vec![(BODY.to_owned(), format!("bytes {}", hex(&digest)))]
    })
}

/// Returns `None` where it is no JSON, or none that all parsers read alike.
fn leaves_of(body: &[u8], unsigned: &[String]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).ok()?;
    // The scanner below rests on it.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut scanner = Scanner {
        text,
        at: 0,
        path: BODY.to_owned(),
        pattern: String::new(),
        unsigned,
        leaves: Some(Vec::new()),
        names: 0,
    };
    let whole = scanner.value(0)?;
    Some(match scanner.leaves {
        Some(leaves) => leaves,
        None => {
            let mut digest = Sha256::new();
            whole.feed(&mut digest);
            let digest: [u8; 32] = digest.finalize().into();
            vec![(BODY.to_owned(), format!("json {}", hex(&digest)))]
        }
    })
}

/// A value, as its parent's digest takes it up.
enum Item<'a> {
    Scalar(Cow<'a, str>),
    Container([u8; 32]),
    /// A member that the route leaves out.
    Unsigned,
}

impl Item<'_> {
    /// Kind and length before content, so that no two lists of items have one digest.
    fn feed(&self, digest: &mut Sha256) {
        match self {
            Self::Scalar(text) => {
                digest.update([b's']);
                feed_text(digest, text);
            }
            Self::Container(of) => {
                digest.update([b'c']);
                digest.update(of);
            }
            // As if it were not there.
            Self::Unsigned => {}
        }
    }
}

fn feed_text(digest: &mut Sha256, text: &str) {
    digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    digest.update(text.as_bytes());
}

/// Reads a text that is known to be JSON.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Where it is, as a mismatch names it: `body.items[0].sku`.
    path: String,
    /// Where it is, as a route names it: `items[].sku`.
    pattern: String,
    unsigned: &'a [String],
    /// `None` once there are too many.
    leaves: Option<Vec<(String, String)>>,
    names: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += space.count();
        self.text.as_bytes().get(self.at).copied()
    }

    /// Reads one of the characters that JSON is made of.
    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn value(&mut self, depth: usize) -> Option<Item<'a>> {
        if depth > DEEPEST {
            return None;
        }
        if self.unsigned.contains(&self.pattern) {
            let leaves = self.leaves.take();
            self.contents(depth)?;
            self.leaves = leaves;
            return Some(Item::Unsigned);
        }
        self.contents(depth)
    }

    fn contents(&mut self, depth: usize) -> Option<Item<'a>> {
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => {
                let text = self.string()?;
                let text = match text {
                    // Without an escape it is already as it would be written.
                    Cow::Borrowed(text) => Cow::Owned(format!("\"{text}\"")),
                    Cow::Owned(text) => Cow::Owned(serde_json::to_string(&text).ok()?),
                };
                Some(self.scalar(text))
            }
            _ => {
                let rest = self.text.get(self.at..)?;
                let end =
                    rest.find(|c: char| matches!(c, ',' | ']' | '}') || c.is_ascii_whitespace());
                let text = rest.get(..end.unwrap_or(rest.len()))?;
                self.at += text.len();
                Some(self.scalar(Cow::Borrowed(text)))
            }
        }
    }

    fn scalar(&mut self, text: Cow<'a, str>) -> Item<'a> {
        self.leaf(&text);
        Item::Scalar(text)
    }

    fn leaf(&mut self, text: &str) {
        let Some(leaves) = &mut self.leaves else {
            return;
        };
        self.names += self.path.len();
        if leaves.len() == MOST_LEAVES || self.names > MOST_NAMES {
            self.leaves = None;
        } else {
            leaves.push((self.path.clone(), text.to_owned()));
        }
    }

    fn array(&mut self, depth: usize) -> Option<Item<'a>> {
        let mut digest = Sha256::new_with_prefix(b"[");
        let (path, pattern) = (self.path.len(), self.pattern.len());
        self.take()?;
        if self.peek()? == b']' {
            self.take()?;
            self.leaf("[]");
            return Some(Item::Container(digest.finalize().into()));
        }
        self.pattern.push_str("[]");
        let mut is_signed = false;
        for index in 0_usize.. {
            if self.leaves.is_some() {
                self.path.push_str(&format!("[{index}]"));
            }
            let item = self.value(depth + 1)?;
            is_signed |= !matches!(item, Item::Unsigned);
            item.feed(&mut digest);
            self.path.truncate(path);
            if self.take()? == b']' {
                break;
            }
        }
        self.pattern.truncate(pattern);
        if !is_signed {
            self.leaf("[]");
        }
        Some(Item::Container(digest.finalize().into()))
    }

    fn object(&mut self, depth: usize) -> Option<Item<'a>> {
        let mut members = Vec::new();
        let (path, pattern) = (self.path.len(), self.pattern.len());
        self.take()?;
        if self.peek()? == b'}' {
            self.take()?;
        } else {
            loop {
                self.peek()?;
                let name = self.string()?;
                // The colon.
                self.take()?;
                self.enter(&name);
                let value = self.value(depth + 1)?;
                self.path.truncate(path);
                self.pattern.truncate(pattern);
                members.push((name, value));
                if self.take()? == b'}' {
                    break;
                }
            }
        }
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        // An object whose members are all left out is there like any other.
        if members
            .iter()
            .all(|(_, value)| matches!(value, Item::Unsigned))
        {
            self.leaf("{}");
        }
        let mut digest = Sha256::new_with_prefix(b"{");
        for (name, value) in &members {
            // Whether a member that is left out is there makes no difference either.
            if !matches!(value, Item::Unsigned) {
                feed_text(&mut digest, name);
                value.feed(&mut digest);
            }
        }
        Some(Item::Container(digest.finalize().into()))
    }

    /// Goes to a member. Characters that have a meaning in a path are escaped, so that no two members have one path.
    fn enter(&mut self, name: &str) {
        if self.leaves.is_some() {
            self.path.push('.');
            push_escaped(&mut self.path, name);
        }
        if !self.unsigned.is_empty() {
            if !self.pattern.is_empty() {
                self.pattern.push('.');
            }
            push_escaped(&mut self.pattern, name);
        }
    }

    /// A string's content. It is borrowed where it has no escape.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        let mut bytes = self.text.as_bytes().get(start + 1..)?.iter();
        let (mut length, mut has_escape) = (0, false);
        loop {
            length += 1;
            match bytes.next()? {
                b'"' => break,
                b'\\' => {
                    has_escape = true;
                    bytes.next()?;
                    length += 1;
                }
                _ => {}
            }
        }
        self.at = start + 1 + length;
        let quoted = self.text.get(start..self.at)?;
        if has_escape {
            serde_json::from_str(quoted).ok().map(Cow::Owned)
        } else {
            quoted.get(1..length).map(Cow::Borrowed)
        }
    }
}

fn push_escaped(path: &mut String, name: &str) {
    for c in name.chars() {
        if matches!(c, '.' | '[' | '\\') {
            path.push('\\');
        }
        path.push(c);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &str, unsigned: &[&str]) -> Vec<(String, String)> {
        let unsigned: Vec<String> = unsigned.iter().map(|&path| path.to_owned()).collect();
        let mut fields = fields_of(body.as_bytes(), true, &unsigned);
        fields.sort_unstable();
        fields
    }

    #[test]
    fn order_space_and_escapes_make_no_difference() {
        let one = r#"{"a": 1, "b": {"c": [true, "x/y"], "d": null}}"#;
        let two = "{ \"b\":{\"d\":null,\"c\":[ true,\"x\\/\\u0079\" ]},\n\"a\":1}";
        assert_eq!(form(one, &[]), form(two, &[]));
        let paths: Vec<String> = form(one, &[]).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["body.a", "body.b.c[0]", "body.b.c[1]", "body.b.d"]);
    }

    /// Each is another request, also where a parser that makes floats of numbers, or keeps the last of two members, sees none.
    #[test]
    fn no_two_documents_have_one_form() {
        let many = format!("[{}]", vec!["1"; MOST_LEAVES + 1].join(","));
        let more = format!("[{}]", vec!["1"; MOST_LEAVES + 2].join(","));
        let nested = format!("[{many}]");
        let strings = many.replace('1', "\"1\"");
        let deep = format!("{}{}", "[".repeat(DEEPEST + 2), "]".repeat(DEEPEST + 2));
        let documents = [
            r#"{"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":null}"#,
            "{}",
            "[]",
            "null",
            "\"\"",
            "\"{}\"",
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"a":[[]]}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a.b":1}"#,
            r#"{"a[0]":1}"#,
            r#"{"a":[1]}"#,
            r#"{"":1}"#,
            "1",
            "100000000000000000000001",
            "100000000000000000000002",
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"{"a":"\ud800"}"#,
            &many,
            &more,
            &nested,
            &strings,
            &deep,
            "no JSON",
            "",
        ];
        for (index, one) in documents.iter().enumerate() {
            for other in &documents[index + 1..] {
                assert_ne!(form(one, &[]), form(other, &[]), "{one} and {other}");
            }
        }
    }

    #[test]
    fn what_a_route_leaves_out_makes_no_difference_also_in_a_large_document() {
        let small = |sent_at: &str| format!(r#"{{"a":1,"meta":{{"sent_at":{sent_at},"b":2}}}}"#);
        let large = |sent_at: &str| {
            let items: Vec<String> = (0..MOST_LEAVES)
                .map(|item| format!(r#"{{"sku":{item},"sent_at":{sent_at}}}"#))
                .collect();
            format!(r#"{{"items":[{}]}}"#, items.join(","))
        };
        let unsigned = ["meta.sent_at", "items[].sent_at"];
        for document in [small, large as fn(&str) -> String] {
            let (one, two) = (document("1"), document(r#"{"x":[2]}"#));
            assert_eq!(form(&one, &unsigned), form(&two, &unsigned));
            assert_ne!(form(&one, &[]), form(&two, &[]));
        }
        assert_ne!(form(r#"{"a":1}"#, &unsigned), form(r#"{"a":2}"#, &unsigned));
        // What is left empty is still there.
        assert_eq!(
            form(r#"{"meta":{"sent_at":1}}"#, &unsigned),
            form(r#"{"meta":{}}"#, &unsigned)
        );
        let items = |items: &str| form(&format!(r#"{{"items":[{items}]}}"#), &unsigned);
        let one = r#"{"sent_at":1}"#;
        assert_eq!(items(one), items("{}"));
        assert_ne!(items(one), items(&format!("{one},{one}")));
        assert_ne!(items(one), items(""));
        assert_ne!(items(one), form("{}", &unsigned));
        let tags = ["tags[]"];
        assert_ne!(form(r#"{"tags":["x"]}"#, &tags), form("{}", &tags));
        assert_eq!(
            form(r#"{"meta":{"b":2},"a":1}"#, &unsigned),
            form(&small("1"), &unsigned)
        );
    }

    #[test]
    fn a_large_document_is_one_field_and_its_order_makes_no_difference() {
        let members = |order: &mut dyn Iterator<Item = usize>| {
            let members: Vec<String> = order.map(|n| format!("\"m{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        let (one, two) = (members(&mut (0..100)), members(&mut (0..100).rev()));
        assert_eq!(form(&one, &[]), form(&two, &[]));
        assert_eq!(form(&one, &[]).len(), 1);
        let long = format!(r#"{{"{}":1}}"#, "n".repeat(MOST_NAMES));
        assert_eq!(form(&long, &[])[0].0, BODY);
    }

    #[test]
    fn other_bodies_are_taken_by_their_bytes() {
        let bytes = |body: &[u8]| fields_of(body, false, &[]);
        assert_ne!(bytes(b"{\"a\":1}"), bytes(b"{\"a\": 1}"));
        assert_eq!(bytes(b"a\xff"), bytes(b"a\xff"));
        assert_eq!(fields_of(b"\xff", true, &[]), bytes(b"\xff"));
        assert_eq!(bytes(b""), []);
    }
}
