//! What the overview's figures of one node mean, and what to do about them: they have no list of their own.

use actix_web::HttpResponse;
use actix_web::web::Data;
use maud::html;

use super::Console;
use super::error::ConsoleError;
use super::layout;
use super::operator::Operator;

pub(super) async fn page(
    console: Data<Console>,
    operator: Operator,
) -> Result<HttpResponse, ConsoleError> {
    let body = html! {
        h2 #gateway { "Gateway: circuit open" }
        p {
            "The gateway refused connections several times in a row, so this node leaves it alone for a moment and answers \
             new payments with 503 " code { "gateway-unavailable" } ": nothing is charged, and clients may try again. It tries \
             again by itself. If it stays open, look at the gateway's status page, at this machine's way out (DNS, proxy, \
             firewall), and at " code { "payonce doctor" } ". What had been sent before is " a href="/console/stuck" { "stuck work" } "."
        }
        h2 #connections { "Connections: all in use" }
        p {
            "Every connection that this node may have to the database is busy at this moment. That is well under load for a \
             moment. If it stays, requests wait for a connection and get 503 after 3 s: look at "
            code { "payonce_database_wait_seconds" } ", at locks and slow statements in " code { "pg_stat_activity" }
            ", and only then raise " code { "PAYONCE_DATABASE_MAX_CONNECTIONS" } "."
        }
        h2 #answers { "Answered 202 or 5xx" }
        p {
            "202: the gateway did not answer in time; the payment is in PROCESSING until recovery knows, and is found under "
            a href="/console/stuck" { "stuck work" } ". 5xx: the request failed; why is in the service's log, by the reply's "
            code { "X-Request-Id" } ". " a href="/console/hour" { "The last hour in figures" } " says in which minutes."
        }
    };
    Ok(layout::page(
        &console,
        &operator,
        None,
        "What the overview means",
        &body,
    ))
}
