//! The page after the sign-in: the one that the operator requested, and never one outside of the console.

use super::links::href;

/// The page with the form.
pub(super) const SIGN_IN: &str = "/console/sign-in";

/// The page after a sign-in that no page led to.
pub(super) const OVERVIEW: &str = "/console";

/// Maximum length, in bytes. Our longest address names a merchant, an operation and a key of 255 encoded characters.
const LONGEST: usize = 2048;

/// The address of the sign-in for an operator who requested the page `from`.
pub(super) fn sign_in_href(from: &str) -> String {
    match checked(from) {
        Some(page) if page != OVERVIEW => href(SIGN_IN, &[("next", page)]),
        _ => SIGN_IN.to_owned(),
    }
}

/// Returns `asked` if it has the form of our own addresses: `/console`, then lower-case names, then parameters in visible ASCII.
/// Browsers cannot interpret such an address in another way: it has no host, no backslash, no line break, and no encoded character
/// in its path.
pub(super) fn checked(asked: &str) -> Option<&str> {
    let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
    let below = path.strip_prefix(OVERVIEW)?;
    let is_name = |name: &str| {
        let is_ours = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        !name.is_empty() && !name.starts_with("sign-") && name.bytes().all(is_ours)
    };
    let is_page = match below.strip_prefix('/') {
        Some(names) => names.split('/').all(is_name),
        None => below.is_empty(),
    };
    let is_parameter = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>#".contains(&byte);
    (asked.len() <= LONGEST && is_page && query.bytes().all(is_parameter)).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_console_are_taken() {
        for page in [
            "/console",
            "/console?renew=30",
            "/console/payments",
            "/console/payment?merchant=acme&id=pay_01a20d23-3703-7632-b6d1-06cc9c2811da",
            "/console/key?merchant=a&operation=create_payment&key=%2F%2Fevil.example%0A",
            "/console/payments?from=2026-11-26+11:15&amount=1,000.00",
        ] {
            assert_eq!(checked(page), Some(page));
        }
    }

    #[test]
    fn nothing_else_is() {
        for page in [
            "",
            "/",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example/console",
            "//evil.example/console",
            "javascript:alert(1)",
            "console",
            " /console",
            "/console ",
            "/Console",
            "/console.evil.example",
            "/console@evil.example",
            "/consoles",
            "/console/",
            "/console//evil.example",
            "/console/../v1/payments",
            "/console/%2e%2e/v1",
            "/console/%2F%2Fevil.example",
            "/console/\\evil.example",
            "/console/payments#//evil.example",
            "/console/payments?a=\\b",
            "/console?a=b\r\nset-cookie: x=y",
            "/console\n",
            "/console\t/payments",
            "/console?a=\u{202e}",
            "/console/sign-in",
            "/console/sign-out",
            "/console/sign-in?next=/console/sign-in",
            "/v1/payments",
        ] {
            assert_eq!(checked(page), None, "{page:?}");
        }
        assert_eq!(checked(&format!("/console?a={}", "b".repeat(2048))), None);
    }

    #[test]
    fn the_form_keeps_where_it_leads() {
        assert_eq!(sign_in_href("/console"), "/console/sign-in");
        assert_eq!(sign_in_href("//evil.example"), "/console/sign-in");
        assert_eq!(
            sign_in_href("/console/stuck?merchant=a"),
            "/console/sign-in?next=%2Fconsole%2Fstuck%3Fmerchant%3Da"
        );
    }
}
