//! Errors, which operators see instead of a page.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, LOCATION};
use actix_web::{HttpResponse, ResponseError};
use maud::html;

use super::{html, return_path};
use crate::idempotency::{IdempotencyError, is_transient};

/// Why a page cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsoleError {
    /// 303 to the sign-in, because the request has no session. After signing in, the operator returns to the page that they requested.
    #[error("Sign in first")]
    SignInFirst {
        /// Path and parameters of the page that was requested.
        from: String,
    },
    /// 401: an action without a session.
    #[error("You are signed out")]
    SignedOut,
    /// 403: the form is not from our page, or from a page of an earlier session.
    #[error("The form is not from this session")]
    Forged,
    /// 404.
    #[error("There is no such page")]
    NotFound,
    /// 400: the request is not one that the form sends.
    #[error("The form could not be read")]
    BadForm,
    /// 503 if the database may be back soon, else 500.
    #[error("The database did not answer")]
    Database(#[from] sqlx::Error),
    /// 500: the task that queried the database panicked.
    #[error("Internal error")]
    Aborted(#[from] IdempotencyError),
}

impl ConsoleError {
    fn advice(&self) -> &'static str {
        match self {
            Self::SignInFirst { .. } => "This page is for operators.",
            Self::SignedOut => {
                "Nothing was done: your session has expired, or was ended elsewhere. Sign in and try again."
            }
            Self::Forged => "Nothing was done. Go back to the page, reload it, and try again.",
            Self::NotFound => "The address may be mistyped, or from an older version.",
            Self::BadForm => {
                "Nothing was done. Go back to the page, reload it, and fill in the form there."
            }
            Self::Database(_) | Self::Aborted(_) => {
                "Whether your action was taken is not certain; the audit shows it if it was. The cause is in the service's log, under \
                 this reply's X-Request-Id."
            }
        }
    }
}

impl ResponseError for ConsoleError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::SignInFirst { .. } => StatusCode::SEE_OTHER,
            Self::SignedOut => StatusCode::UNAUTHORIZED,
            Self::Forged => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BadForm => StatusCode::BAD_REQUEST,
            Self::Database(error) if is_transient(error) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) | Self::Aborted(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Database(error) = self {
            tracing::error!(%error, "a page of the console failed");
        } else if let Self::Aborted(error) = self {
            tracing::error!(%error, "a page of the console failed");
        }
        let title = self.to_string();
        let body = html! {
            p { (self.advice()) }
            p { a href="/console" { "To the overview" } }
        };
        let mut response = html::reply(self.status_code(), html::bare_page(&title, &body));
        if let Self::SignInFirst { from } = self {
            let to = HeaderValue::try_from(return_path::sign_in_href(from))
                .unwrap_or(HeaderValue::from_static(return_path::SIGN_IN));
            response.headers_mut().insert(LOCATION, to);
        }
        response
    }
}
