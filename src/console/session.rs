//! A session lasts from an operator's sign-in to their sign-out.
//!
//! It is kept in a signed cookie, so every node knows it and no node stores it. The key of the signature is derived from the console's
//! token, so a new token ends all sessions. The cookie has the time at which the session expires, which is compared with the database's
//! clock. On every request the audit table tells whether the operator has signed out, so a copied cookie is worthless after that.

use std::fmt;

use actix_web::HttpRequest;
use actix_web::cookie::time::Duration as CookieDuration;
use actix_web::cookie::{Cookie, SameSite};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use uuid::Uuid;

/// The cookie's name.
pub(super) const COOKIE: &str = "payonce_console";

/// Maximum duration of a session: one shift.
pub(super) const SECONDS: i64 = 8 * 60 * 60;

/// Maximum length of an operator's name, in characters. The schema has the same constraint.
const LONGEST_NAME: usize = 64;

/// Signs sessions and their forms.
pub(super) struct SessionKey(Hmac<Sha256>);

impl SessionKey {
    /// Derives the key from the console's token. It is the same on every node.
    pub(super) fn derived_from(token: &SecretString) -> Self {
        let derived = keyed(token.expose_secret().as_bytes())
            .chain_update(b"payonce console sessions, version 1")
            .finalize()
            .into_bytes();
        Self(keyed(&derived))
    }

    /// Signs `content` in its role. Returns hexadecimal digits.
    pub(super) fn sign(&self, role: &str, content: &str) -> String {
        hex::encode(self.mac(role, content).finalize().into_bytes())
    }

    /// Returns true if `signature` is that of `content`. The comparison takes constant time.
    pub(super) fn verify(&self, role: &str, content: &str, signature: &str) -> bool {
        hex::decode(signature)
            .is_ok_and(|signature| self.mac(role, content).verify_slice(&signature).is_ok())
    }

    fn mac(&self, role: &str, content: &str) -> Hmac<Sha256> {
        // A role has no NUL, so no two pairs of role and content have the same signature.
        let mac = self.0.clone().chain_update(role).chain_update([0]);
        mac.chain_update(content)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(hidden)")
    }
}

/// HMAC takes a key of any length (RFC 2104, 2).
pub(super) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match <Hmac<Sha256> as KeyInit>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC has no key of a wrong length"),
    }
}

/// Parses an operator's name: 1 to 64 visible characters on one line. The audit shows it among the names of others, so no character in
/// it may reorder, hide or imitate others.
pub(super) fn operator_name(typed: &str) -> Option<String> {
    let name = typed.trim();
    let fits = (1..=LONGEST_NAME).contains(&name.chars().count());
    (fits && !name.contains(is_unseen)).then(|| name.to_owned())
}

/// Control and format characters, line and paragraph separators, and characters without a visible form. In terms of Unicode 17: the
/// categories Cc, Cf, Zl and Zp, and the characters with the property `Default_Ignorable_Code_Point`.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The content of the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: Uuid,
    /// The name that the operator gave.
    pub(super) operator: String,
    /// Seconds since 1970, by the database's clock.
    pub(super) expires_at: i64,
}

impl Session {
    /// The cookie with the session. If `is_secure`, browsers send it over TLS only.
    pub(super) fn cookie(&self, key: &SessionKey, is_secure: bool) -> Cookie<'static> {
        let content = self.content();
        let signature = key.sign("session", &content);
        cookie(format!("{content}.{signature}"), SECONDS, is_secure)
    }

    fn content(&self) -> String {
        let operator = hex::encode(&self.operator);
        format!("{}.{}.{operator}", self.id.simple(), self.expires_at)
    }

    /// Returns the session in a cookie that this key signed.
    pub(super) fn read(value: &str, key: &SessionKey) -> Option<Self> {
        let (content, signature) = value.rsplit_once('.')?;
        if !key.verify("session", content, signature) {
            return None;
        }
        let mut parts = content.splitn(3, '.');
        let (id, expires_at) = (parts.next()?, parts.next()?);
        let operator = String::from_utf8(hex::decode(parts.next()?).ok()?).ok()?;
        Some(Self {
            id: id.parse().ok()?,
            expires_at: expires_at.parse().ok()?,
            // An older version accepted other names.
            operator: operator_name(&operator)?,
        })
    }
}

/// The cookie that makes a browser delete the session.
pub(super) fn no_cookie(is_secure: bool) -> Cookie<'static> {
    cookie(String::new(), 0, is_secure)
}

/// `Lax`, so that links in chats and mails are followed with the session, and forms of other sites are sent without it.
fn cookie(value: String, seconds: i64, is_secure: bool) -> Cookie<'static> {
    Cookie::build(COOKIE, value)
        .path("/console")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(is_secure)
        .max_age(CookieDuration::seconds(seconds))
        .finish()
}

/// Returns true if the browser uses TLS, to us or to a proxy that says so (`X-Forwarded-Proto`, `Forwarded`). A client that lies about
/// it only gets a cookie that it will not send.
pub(super) fn is_secure(request: &HttpRequest) -> bool {
    request.connection_info().scheme() == "https"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            id: Uuid::from_u128(7),
            operator: "Zoë. B".to_owned(),
            expires_at: 1_800_000_000,
        }
    }

    fn key(token: &str) -> SessionKey {
        SessionKey::derived_from(&SecretString::from(token))
    }

    #[test]
    fn a_cookie_is_read_under_its_own_token_alone() {
        let cookie = session().cookie(&key("one"), true);
        assert_eq!(Session::read(cookie.value(), &key("one")), Some(session()));
        assert_eq!(Session::read(cookie.value(), &key("two")), None);
    }

    #[test]
    fn a_cookie_that_was_changed_anywhere_is_none() {
        let cookie = session().cookie(&key("one"), true);
        let value = cookie.value();
        for index in 0..value.len() {
            let mut changed = value.as_bytes().to_vec();
            changed[index] = if changed[index] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(Session::read(&changed, &key("one")), None, "{changed}");
        }
        for text in ["", ".", "a.b.c.d", &value[..value.len() - 2]] {
            assert_eq!(Session::read(text, &key("one")), None, "{text}");
        }
    }

    #[test]
    fn one_roles_signature_is_not_anothers() {
        let key = key("one");
        let signature = key.sign("csrf", "x");
        assert!(key.verify("csrf", "x", &signature));
        assert!(!key.verify("session", "x", &signature));
        assert!(!key.verify("csrf", "y", &signature));
    }

    #[test]
    fn a_name_has_1_to_64_characters_on_one_line() {
        assert_eq!(operator_name(" Ada "), Some("Ada".to_owned()));
        assert!(operator_name(&"ü".repeat(64)).is_some());
        for name in ["", "  ", "a\nb", "a\0b", &"a".repeat(65)] {
            assert_eq!(operator_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_name_has_visible_characters_only() {
        for name in [
            "Zoë. B",
            "Øystein",
            "李雷",
            "דנה",
            "नीति",
            "O'Neil-Ito, 2nd",
        ] {
            assert_eq!(operator_name(name), Some(name.to_owned()));
        }
        for unseen in [
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert_eq!(operator_name(&format!("A{unseen}da")), None, "{unseen:?}");
        }
    }

    #[test]
    fn a_cookie_with_a_name_that_is_none_is_none() {
        let hidden = Session {
            operator: "Ada\u{202e}".to_owned(),
            ..session()
        };
        let cookie = hidden.cookie(&key("one"), true);
        assert_eq!(Session::read(cookie.value(), &key("one")), None);
    }
}
