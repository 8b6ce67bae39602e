//! Explains the overview's figures of one node, which have no list of their own: what they mean, and what to do about them.

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
            "The gateway refused connections several times in a row, so this node does not call it for a moment, and answers \
             new payments with 503 " code { "gateway-unavailable" } ": nothing is charged, and clients may try again. It tries \
             again by itself. If it stays open, check the gateway's status page, this machine's network (DNS, proxy, \
             firewall), and run " code { "payonce doctor" } ". Requests that had been sent before are " a href="/console/stuck" { "stuck work" } "."
        }
        h2 #connections { "Connections: all in use" }
        p {
            "All of this node's connections to the database are in use. Under load this is normal for a \
             moment. If it persists, requests wait for a connection and get 503 after 3 s: check "
            code { "payonce_database_wait_seconds" } ", locks and slow statements in " code { "pg_stat_activity" }
            ", and only then raise " code { "PAYONCE_DATABASE_MAX_CONNECTIONS" } "."
        }
        h2 #answers { "Answered 202 or 5xx" }
        p {
            "202: the gateway did not answer in time; the payment is in PROCESSING until recovery finds the outcome, and is listed under "
            a href="/console/stuck" { "stuck work" } ". 5xx: the request failed; the reason is in the service's log, by the reply's "
            code { "X-Request-Id" } ". " a href="/console/hour" { "The last hour in figures" } " has the counts by minute."
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
