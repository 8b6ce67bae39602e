//! Signing in and out.

mod token;
mod wrong_tries;

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::{LOCATION, RETRY_AFTER};
use actix_web::web::{Data, Form, Query};
use actix_web::{HttpRequest, HttpResponse};
use chrono::Utc;
use maud::{Markup, html};
use secrecy::SecretString;
use serde::Deserialize;
use uuid::Uuid;

use self::token::ConsoleToken;
use self::wrong_tries::{Noted, WrongTries};
use super::error::ConsoleError;
use super::operator::{self, Operator};
use super::session::{self, Session};
use super::{Console, audit, csrf, html, return_path};

const SECONDS_OF_AN_HOUR: i64 = 3600;

/// What decides whether a sign-in succeeds.
pub(super) struct Door {
    token: ConsoleToken,
    wrong: WrongTries,
}

impl Door {
    pub(super) fn new(token: &SecretString) -> Self {
        Self {
            token: ConsoleToken::new(token),
            wrong: WrongTries::default(),
        }
    }

    /// Counts an attempt with a wrong token.
    fn note_wrong_try(&self, request: &HttpRequest) -> Noted {
        let address = request.peer_addr().map(|address| address.ip());
        let hour = Utc::now().timestamp().div_euclid(SECONDS_OF_AN_HOUR);
        self.wrong.note(address, Instant::now(), hour)
    }
}

#[derive(Deserialize)]
pub(super) struct SignInQuery {
    next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    operator: String,
    token: SecretString,
    next: Option<String>,
}

pub(super) async fn page(query: Query<SignInQuery>) -> HttpResponse {
    html::reply(StatusCode::OK, form(None, "", query.next.as_deref()))
}

/// Signs an operator in if the token is right, after the sign-in has been recorded in the audit.
///
/// The token is checked first, so earlier wrong attempts never keep an operator out.
pub(super) async fn enter(
    console: Data<Console>,
    request: HttpRequest,
    sent: Form<SignIn>,
) -> Result<HttpResponse, ConsoleError> {
    let SignIn {
        operator,
        token,
        next,
    } = sent.into_inner();
    let next = next.as_deref().and_then(return_path::checked);
    if !console.door().token.is(&token) {
        return refuse(&console, &request, &operator, next).await;
    }
    let Some(operator) = session::operator_name(&operator) else {
        let complaint = "Your name is needed: at most 64 characters on one line, each of them visible. It is shown in the audit.";
        let page = form(Some(complaint), "", next);
        return Ok(html::reply(StatusCode::BAD_REQUEST, page));
    };
    let session = admit(&console, &request, operator).await?;
    let cookie = session.cookie(console.sessions(), session::is_secure(&request));
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, next.unwrap_or(return_path::OVERVIEW)))
        .cookie(cookie)
        .finish())
}

async fn admit(
    console: &Console,
    request: &HttpRequest,
    operator: String,
) -> Result<Session, ConsoleError> {
    let (id, peer) = (Uuid::new_v4(), operator::peer(request));
    let name = operator.clone();
    let signed_in_at = console
        .ask(move |console| async move {
            let actor = audit::Actor {
                operator: &name,
                peer: &peer,
                session: id,
            };
            audit::note_sign_in(console.pool(), actor).await
        })
        .await?;
    count("admitted");
    Ok(Session {
        id,
        operator,
        expires_at: signed_in_at.timestamp() + session::SECONDS,
    })
}

/// The name that was given is not recorded: without the token it may have been chosen to mislead.
async fn refuse(
    console: &Console,
    request: &HttpRequest,
    operator: &str,
    next: Option<&str>,
) -> Result<HttpResponse, ConsoleError> {
    let Noted { pause, audited } = console.door().note_wrong_try(request);
    count(if pause.is_some() {
        "limited"
    } else {
        "refused"
    });
    if let Some(refusals) = audited {
        console
            .ask(move |console| async move {
                audit::note_refusals(console.pool(), &refusals.network, refusals.tries).await
            })
            .await?;
    }
    Ok(match pause {
        Some(pause) => too_many_tries(pause, operator, next),
        None => {
            let page = form(Some("That is not the console's token."), operator, next);
            html::reply(StatusCode::UNAUTHORIZED, page)
        }
    })
}

#[derive(Deserialize)]
pub(super) struct SignOut {
    csrf: Option<String>,
}

/// Ends the session on every node, by a row in the audit table.
pub(super) async fn leave(
    console: Data<Console>,
    request: HttpRequest,
    operator: Operator,
    sent: Form<SignOut>,
) -> Result<HttpResponse, ConsoleError> {
    csrf::check(console.sessions(), &operator.session, sent.csrf.as_deref())?;
    console
        .ask(move |console| async move {
            audit::note_sign_out(console.pool(), operator.actor()).await
        })
        .await?;
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, return_path::SIGN_IN))
        .cookie(session::no_cookie(session::is_secure(&request)))
        .finish())
}

fn too_many_tries(pause: Duration, operator: &str, next: Option<&str>) -> HttpResponse {
    let seconds = pause.as_secs() + 1;
    let complaint = format!(
        "That is not the console's token, and there were too many wrong tries. Try again in {seconds} s. The right token \
         is let in at any time."
    );
    let page = form(Some(&complaint), operator, next);
    let mut response = html::reply(StatusCode::TOO_MANY_REQUESTS, page);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

/// The form. `next` is the page that follows the sign-in; an address that is not allowed is dropped.
fn form(complaint: Option<&str>, operator: &str, next: Option<&str>) -> Markup {
    let next = next.and_then(return_path::checked);
    let body = html! {
        @if let Some(complaint) = complaint {
            p #complaint .notice.bad role="alert" { (complaint) }
        }
        form .card.sign-in method="post" action=(return_path::SIGN_IN) {
            @if let Some(next) = next { input type="hidden" name="next" value=(next); }
            label for="operator" { "Your name" }
            input #operator name="operator" value=(operator) required maxlength="64" autocomplete="username"
                aria-describedby="operator-help";
            p #operator-help .help { "The audit shows it with your actions." }
            label for="token" { "Token" }
            input #token name="token" type="password" required autocomplete="current-password"
                aria-describedby=[complaint.map(|_| "complaint")];
            button type="submit" { "Sign in" }
        }
    };
    html::bare_page("Sign in", &body)
}

fn count(result: &'static str) {
    metrics::counter!("payonce_console_sign_ins_total", "result" => result).increment(1);
}
