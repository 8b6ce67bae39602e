//! The operators' console.

use clap::Args;
use secrecy::SecretString;

use super::value::{Refused, SHORTEST_SAFE_SECRET};

/// The console's settings.
#[derive(Clone, Debug, Args)]
pub struct ConsoleArgs {
    /// Turns on the operators' console at /console, and is the token that operators sign in with; at least 16 characters.
    #[arg(
        long,
        env = "PAYONCE_CONSOLE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    #[arg(value_parser = console_token)]
    pub console_token: Option<SecretString>,
}

/// The token gives access to every payment, so a short one is refused. It may have been read from a file that ends with a
/// newline, which an operator could not type; surrounding white space is therefore dropped.
fn console_token(text: &str) -> Result<SecretString, Refused> {
    let text = text.trim();
    if text.chars().count() < SHORTEST_SAFE_SECRET {
        Err(Refused::new(format!(
            "at least {SHORTEST_SAFE_SECRET} characters are needed"
        )))
    } else {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_console_token_has_sixteen_characters() {
        assert!(console_token("123456789012345").is_err());
        assert!(
            console_token("üüüüüüüüüüüüüüü").is_err(),
            "bytes do not count"
        );
        assert!(console_token("1234567890123456").is_ok());
        assert!(console_token("123456789012345\n").is_err());
    }

    #[test]
    fn a_newline_at_the_end_is_not_part_of_the_token() {
        let token = console_token("1234567890123456\r\n").expect("a token");
        assert_eq!(token.expose_secret(), "1234567890123456");
    }
}
