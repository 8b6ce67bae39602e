//! Signing in and out.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use actix_web::http::StatusCode;
use actix_web::http::header::{LOCATION, RETRY_AFTER};
use actix_web::web::{Data, Form};
use actix_web::{HttpRequest, HttpResponse};
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use hmac::{Hmac, Mac};
use maud::{Markup, html};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;
use uuid::Uuid;

use super::error::ConsoleError;
use super::session::{self, Operator, Session, keyed};
use super::{Console, audit, csrf, layout};

/// So many tries from one address at once, and as many a minute. An operator needs one a day; a program that guesses needs
/// 2^64 of them for the shortest token there may be.
const TRIES_A_MINUTE: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// So many addresses are remembered before those are forgotten that have all their tries again.
const REMEMBERED_ADDRESSES: usize = 1000;

/// Who decides at the door: knows the token, and counts the tries.
pub(super) struct Doorkeeper {
    /// Keyed by the token: what is presented is compared by what this makes of it.
    token: Hmac<Sha256>,
    tries: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>,
}

impl Doorkeeper {
    pub(super) fn new(token: &SecretString) -> Self {
        Self {
            token: keyed(token.expose_secret().as_bytes()),
            tries: RateLimiter::hashmap(Quota::per_minute(TRIES_A_MINUTE)),
        }
    }

    /// `Err`: the whole seconds after which this address may try again.
    fn admit_try(&self, address: Option<IpAddr>) -> Result<(), u64> {
        if self.tries.len() > REMEMBERED_ADDRESSES {
            self.tries.retain_recent();
        }
        self.tries.check_key(&network(address)).map_err(|until| {
            until
                .wait_time_from(DefaultClock::default().now())
                .as_secs()
                + 1
        })
    }

    /// Whether this is the token. Two digests are compared, in a time that does not depend on how much of them is equal, so
    /// neither the token's content nor its length shows.
    fn knows(&self, presented: &SecretString) -> bool {
        let digest = |mac: Hmac<Sha256>| mac.chain_update(b"payonce console token");
        let presented = digest(keyed(presented.expose_secret().as_bytes()))
            .finalize()
            .into_bytes();
        digest(self.token.clone()).verify_slice(&presented).is_ok()
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(address: Option<IpAddr>) -> IpAddr {
    match address {
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        Some(address) => address,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    operator: String,
    token: SecretString,
}

pub(super) async fn page() -> HttpResponse {
    layout::reply(StatusCode::OK, form(None, ""))
}

/// Lets in whoever has the token, once that is in the audit table.
pub(super) async fn enter(
    console: Data<Console>,
    request: HttpRequest,
    sent: Form<SignIn>,
) -> Result<HttpResponse, ConsoleError> {
    let SignIn { operator, token } = sent.into_inner();
    let address = request.peer_addr().map(|address| address.ip());
    if let Err(seconds) = console.doorkeeper().admit_try(address) {
        count("limited");
        return Ok(too_many_tries(seconds, &operator));
    }
    let Some(operator) = session::operator_name(&operator) else {
        let complaint = "Your name is needed, on one line and with at most 64 characters: it goes into the audit.";
        let page = form(Some(complaint), &operator);
        return Ok(layout::reply(StatusCode::BAD_REQUEST, page));
    };
    let peer = session::peer(&request);
    if !console.doorkeeper().knows(&token) {
        count("refused");
        let refused = audit::SignIn::refused(&operator, &peer);
        console
            .ask(move |console| async move { audit::note_sign_in(console.pool(), refused).await })
            .await?;
        let page = form(Some("That is not the console's token."), &operator);
        return Ok(layout::reply(StatusCode::UNAUTHORIZED, page));
    }
    let id = Uuid::new_v4();
    let admitted = audit::SignIn::admitted(&operator, &peer, id);
    let signed_in_at = console
        .ask(move |console| async move { audit::note_sign_in(console.pool(), admitted).await })
        .await?;
    count("admitted");
    let session = Session {
        id,
        operator,
        expires_at: signed_in_at.timestamp() + session::SECONDS,
    };
    let cookie = session.cookie(console.sessions(), session::is_secure(&request));
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, "/console"))
        .cookie(cookie)
        .finish())
}

#[derive(Deserialize)]
pub(super) struct SignOut {
    csrf: Option<String>,
}

/// Ends the session on every node: its row in the audit table is what ends it.
pub(super) async fn leave(
    console: Data<Console>,
    request: HttpRequest,
    operator: Operator,
    sent: Form<SignOut>,
) -> Result<HttpResponse, ConsoleError> {
    csrf::check(console.sessions(), &operator, sent.csrf.as_deref())?;
    console
        .ask(move |console| async move { audit::note_sign_out(console.pool(), &operator).await })
        .await?;
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, "/console/sign-in"))
        .cookie(session::no_cookie(session::is_secure(&request)))
        .finish())
}

fn too_many_tries(seconds: u64, operator: &str) -> HttpResponse {
    let complaint = format!("Too many tries from your address. Try again in {seconds} s.");
    let page = form(Some(&complaint), operator);
    let mut response = layout::reply(StatusCode::TOO_MANY_REQUESTS, page);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

fn form(complaint: Option<&str>, operator: &str) -> Markup {
    let body = html! {
        @if let Some(complaint) = complaint {
            p #complaint .notice.bad role="alert" { (complaint) }
        }
        form .card.sign-in method="post" action="/console/sign-in" {
            label for="operator" { "Your name" }
            input #operator name="operator" value=(operator) required maxlength="64" autocomplete="username"
                aria-describedby="operator-help";
            p #operator-help .help { "It stands in the audit beside what you do." }
            label for="token" { "Token" }
            input #token name="token" type="password" required autocomplete="current-password"
                aria-describedby=[complaint.map(|_| "complaint")];
            button type="submit" { "Sign in" }
        }
    };
    layout::bare_page("Sign in", &body)
}

fn count(result: &'static str) {
    metrics::counter!("payonce_console_sign_ins_total", "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doorkeeper() -> Doorkeeper {
        Doorkeeper::new(&SecretString::from("correct horse battery"))
    }

    #[test]
    fn only_the_token_is_known() {
        for (presented, known) in [
            ("correct horse battery", true),
            ("correct horse batterz", false),
            ("correct horse batter", false),
            ("correct horse battery ", false),
            ("", false),
        ] {
            let presented_token = SecretString::from(presented);
            assert_eq!(doorkeeper().knows(&presented_token), known, "{presented:?}");
        }
    }

    #[test]
    fn five_tries_an_address_and_no_more_for_its_neighbours() {
        let doorkeeper = doorkeeper();
        let address = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        for _ in 0..5 {
            assert_eq!(doorkeeper.admit_try(address("2001:db8::1")), Ok(()));
        }
        let refused = doorkeeper.admit_try(address("2001:db8::ffff"));
        assert!(matches!(refused, Err(1..=13)), "{refused:?}");
        assert_eq!(doorkeeper.admit_try(address("2001:db8:0:1::1")), Ok(()));
        assert_eq!(doorkeeper.admit_try(address("192.0.2.1")), Ok(()));
    }
}
