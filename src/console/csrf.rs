//! The token by which a form proves that it came from our own page: a signature of the session, which another site can neither read
//! nor make. In addition, the cookie is `SameSite=Lax`, so browsers send the form of another site without it.

use maud::{Markup, html};

use super::error::ConsoleError;
use super::session::{Session, SessionKey};

const ROLE: &str = "csrf";

/// The hidden field of each form that changes something.
pub(super) fn field(key: &SessionKey, session: &Session) -> Markup {
    let token = key.sign(ROLE, &session.id.to_string());
    html! { input type="hidden" name="csrf" value=(token); }
}

/// Refuses a form without the session's own token.
pub(super) fn check(
    key: &SessionKey,
    session: &Session,
    token: Option<&str>,
) -> Result<(), ConsoleError> {
    let id = session.id.to_string();
    if token.is_some_and(|token| key.verify(ROLE, &id, token)) {
        return Ok(());
    }
    tracing::warn!(
        operator = session.operator,
        session = id,
        "a form of the console had no valid token"
    );
    Err(ConsoleError::Forged)
}
