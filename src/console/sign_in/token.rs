//! The console's token, which operators sign in with.

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::super::session::keyed;

/// Recognises the token without storing it: keyed digests are compared.
pub(in super::super) struct ConsoleToken(Hmac<Sha256>);

impl ConsoleToken {
    pub(in super::super) fn new(token: &SecretString) -> Self {
        Self(keyed(token.expose_secret().as_bytes()))
    }

    /// Returns true if this is the token. The digests are compared in constant time, which reveals neither the token's content nor its
    /// length.
    pub(in super::super) fn is(&self, presented: &SecretString) -> bool {
        let digest = |mac: Hmac<Sha256>| mac.chain_update(b"payonce console token");
        let presented = digest(keyed(presented.expose_secret().as_bytes()))
            .finalize()
            .into_bytes();
        digest(self.0.clone()).verify_slice(&presented).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_known() {
        let token = ConsoleToken::new(&SecretString::from("correct horse battery"));
        for (presented, known) in [
            ("correct horse battery", true),
            ("correct horse batterz", false),
            ("correct horse batter", false),
            ("correct horse battery ", false),
            ("", false),
        ] {
            assert_eq!(
                token.is(&SecretString::from(presented)),
                known,
                "{presented:?}"
            );
        }
    }
}
