//! Every route of the console in one list.

use actix_web::HttpResponse;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, FormConfig, QueryConfig, ServiceConfig};

use super::error::ConsoleError;
use super::operator::Operator;
use super::security_headers::add_security_headers;
use super::{
    Console, assets, audit_page, help_page, keys, merchants_page, overview, payments, sign_in,
};

/// Maximum size of a form, in bytes: the longest merchant, operation and key, encoded; for the sign-in a second time, within the
/// address to return to.
const LARGEST_FORM: usize = 8192;

/// Adds the console's routes, or none if there is no console.
pub fn routes(config: &mut ServiceConfig, console: Option<&Console>) {
    let Some(console) = console else { return };
    config.app_data(Data::new(console.clone())).service(
        web::scope("/console")
            .wrap(from_fn(add_security_headers))
            .app_data(form_config())
            .app_data(QueryConfig::default().error_handler(|_, _| ConsoleError::BadForm.into()))
            .route("", web::get().to(overview::page))
            .route("/hour", web::get().to(overview::hour_page))
            .route("/help", web::get().to(help_page::page))
            .route("/sign-in", web::get().to(sign_in::page))
            .route("/sign-in", web::post().to(sign_in::enter))
            .route("/sign-out", web::post().to(sign_in::leave))
            .route("/payments", web::get().to(payments::search_page))
            .route("/payment", web::get().to(payments::payment_page))
            .route("/refund", web::get().to(payments::refund_page))
            .route("/declines", web::get().to(payments::declines_page))
            .route("/keys", web::get().to(keys::search_page))
            .route("/key", web::get().to(keys::key_page))
            .route("/stuck", web::get().to(keys::stuck_page))
            .route("/stuck/resolve", web::post().to(keys::resolve_now))
            .route("/merchants", web::get().to(merchants_page::page))
            .route("/audit", web::get().to(audit_page::page))
            .route("/assets/console.css", web::get().to(assets::style_sheet))
            .route("/assets/icon.svg", web::get().to(assets::icon))
            .default_service(web::to(not_found)),
    );
}

fn form_config() -> FormConfig {
    FormConfig::default()
        .limit(LARGEST_FORM)
        .error_handler(|_, _| ConsoleError::BadForm.into())
}

/// Replies that a page does not exist, but only to an operator: others do not learn which pages exist.
async fn not_found(_: Operator) -> Result<HttpResponse, ConsoleError> {
    Err(ConsoleError::NotFound)
}
