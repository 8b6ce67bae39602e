//! A form's proof that it came from our own page: a signature of the session, which another site can neither read nor make.
//! The cookie's `SameSite=Strict` says the same to a browser that heeds it.

use maud::{Markup, html};

use super::error::ConsoleError;
use super::session::{Operator, SessionKey};

const ROLE: &str = "csrf";

/// The hidden field of each form that does something.
pub(super) fn field(key: &SessionKey, operator: &Operator) -> Markup {
    let token = key.sign(ROLE, &operator.session.id.to_string());
    html! { input type="hidden" name="csrf" value=(token); }
}

/// Refuses a form without the session's own proof.
pub(super) fn check(
    key: &SessionKey,
    operator: &Operator,
    token: Option<&str>,
) -> Result<(), ConsoleError> {
    let session = operator.session.id.to_string();
    if token.is_some_and(|token| key.verify(ROLE, &session, token)) {
        return Ok(());
    }
    tracing::warn!(
        operator = operator.session.operator,
        peer = operator.peer,
        "a form of the console came without its proof"
    );
    Err(ConsoleError::Forged)
}
