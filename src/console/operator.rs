//! The operator of a request: signed in, not signed out since, and within their session's time.

use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest, dev};
use chrono::{DateTime, Utc};
use futures_util::future::LocalBoxFuture;

use super::Console;
use super::audit::{self, Actor};
use super::error::ConsoleError;
use super::session::{self, Session};

/// An operator and their request.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) session: Session,
    /// The address that the request came from.
    pub(super) peer: String,
    /// The time of the request, by the database's clock.
    pub(super) asked_at: DateTime<Utc>,
    /// The path and parameters of the request.
    pub(super) here: String,
}

impl Operator {
    /// The operator as the audit records them.
    pub(super) fn actor(&self) -> Actor<'_> {
        Actor {
            operator: &self.session.operator,
            peer: &self.peer,
            session: self.session.id,
        }
    }
}

/// The address that a request came from, for the audit: the peer of the connection, which may be a proxy.
pub(super) fn peer(request: &HttpRequest) -> String {
    let address = request.peer_addr().map(|address| address.ip().to_string());
    address.unwrap_or_else(|| "unknown".to_owned())
}

fn here(request: &HttpRequest) -> String {
    let address = request.uri().path_and_query();
    address.map_or_else(String::new, |address| address.as_str().to_owned())
}

impl FromRequest for Operator {
    type Error = ConsoleError;
    type Future = LocalBoxFuture<'static, Result<Self, ConsoleError>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let operator = signed_in(&request).await?;
            operator.ok_or_else(|| match request.method().is_safe() {
                true => ConsoleError::SignInFirst {
                    from: here(&request),
                },
                false => ConsoleError::SignedOut,
            })
        })
    }
}

async fn signed_in(request: &HttpRequest) -> Result<Option<Operator>, ConsoleError> {
    let Some(console) = request.app_data::<Data<Console>>() else {
        return Ok(None);
    };
    let Some(cookie) = request.cookie(session::COOKIE) else {
        return Ok(None);
    };
    let Some(session) = Session::read(cookie.value(), console.sessions()) else {
        return Ok(None);
    };
    let (id, expires_at) = (session.id, session.expires_at);
    let open_at = console
        .ask(move |console| async move { audit::open_at(console.pool(), id, expires_at).await })
        .await?;
    Ok(open_at.map(|asked_at| Operator {
        session,
        peer: peer(request),
        asked_at,
        here: here(request),
    }))
}
