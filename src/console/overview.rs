//! The overview: how much traffic there is, and what needs attention.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use maud::{Markup, html};

use super::charts::Chart;
use super::error::ConsoleError;
use super::html::{self, Cell};
use super::layout::{self, Tab};
use super::links;
use super::operator::Operator;
use super::traffic::{self, Counts, Hour, MINUTES};
use super::{Console, keys};
use crate::mismatches::{Mismatches, NotedMismatch};

/// Maximum number of mismatches that are shown.
const MISMATCHES_SHOWN: u16 = 5;

/// Share of declines that needs attention: several times the usual share for card payments.
const MANY_DECLINES: f64 = 0.2;

/// Minimum number of payments for which a share is meaningful.
const FEW_PAYMENTS: u64 = 20;

/// A key that has been in `PROCESSING` for longer has outlived its gateway's time-out and its lease.
const LONG: Duration = Duration::from_secs(60);

struct Seen {
    hour: Hour,
    processing: u64,
    oldest: Duration,
    left_behind: u64,
    mismatches: Vec<NotedMismatch>,
}

async fn look(console: Console) -> sqlx::Result<Seen> {
    let pool = console.pool();
    console.traffic().save(pool, console.node()).await?;
    let counts = keys::count_unsettled(pool).await?;
    Ok(Seen {
        hour: traffic::last_hour(pool).await?,
        processing: counts.processing,
        oldest: counts.oldest,
        left_behind: counts.left_behind,
        mismatches: Mismatches::latest(pool, MISMATCHES_SHOWN).await?,
    })
}

pub(super) async fn page(
    console: Data<Console>,
    operator: Operator,
) -> Result<HttpResponse, ConsoleError> {
    let seen = console.ask(look).await?;
    let mut all = Counts::default();
    seen.hour.iter().for_each(|minute| all.add(minute));
    let body = html! {
        h2 #attention { "What needs attention" }
        ul .cards aria-labelledby="attention" { @for card in attention(&console, &seen, &all) { (card) } }
        h2 { "The last hour" }
        (hour(&seen.hour, &all))
        (mismatches_table("Mismatches: keys that were used again with another request", &seen.mismatches))
    };
    Ok(layout::renewing_page(
        &console,
        &operator,
        Tab::Overview,
        "Overview",
        &body,
    ))
}

/// The last hour in figures, minute by minute.
pub(super) async fn hour_page(
    console: Data<Console>,
    operator: Operator,
) -> Result<HttpResponse, ConsoleError> {
    let hour = console
        .ask(|console| async move {
            console
                .traffic()
                .save(console.pool(), console.node())
                .await?;
            traffic::last_hour(console.pool()).await
        })
        .await?;
    let body = html! {
        p { "Answers of all nodes. " a href="/console/help#answers" { "What 202 and 5xx mean" } "." }
        (figures(&hour))
    };
    let title = "The last hour in figures";
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Overview),
        title,
        &body,
    ))
}

/// An indicator. Its verdict is a word, and in addition a colour. `href` leads to the details.
fn card(title: &str, is_well: bool, figure: &str, href: &str, explained: &Markup) -> Markup {
    html! {
        li .card {
            h3 { (title) }
            p .figure { (figure) }
            p {
                @if is_well { span .state.good { "fine" } " " a href=(href) { (explained) } }
                @else { a .state.bad href=(href) aria-label={ "look: " (title) } { "look" } " " (explained) }
            }
        }
    }
}

fn attention(console: &Console, seen: &Seen, all: &Counts) -> [Markup; 6] {
    let pool = console.pool();
    let idle = u64::try_from(pool.num_idle()).unwrap_or(u64::MAX);
    let busy = u64::from(pool.size()).saturating_sub(idle);
    let most = u64::from(pool.options().get_max_connections());
    let decided = all.made + all.declined;
    let declined = share(all.declined, decided);
    let gateway_answers = console.payments().gateway_is_available();
    let oldest = Duration::from_secs(seen.oldest.as_secs());
    [
        card(
            "Stuck keys",
            seen.left_behind == 0,
            &seen.left_behind.to_string(),
            "/console/stuck",
            &html! { "abandoned by their owners" },
        ),
        card(
            "Oldest PROCESSING",
            oldest < LONG,
            &humantime::format_duration(oldest).to_string(),
            "/console/stuck",
            &html! { "of " (seen.processing) " in PROCESSING" },
        ),
        card(
            "Declined",
            declined.is_none_or(|share| share < MANY_DECLINES || decided < FEW_PAYMENTS),
            &percent(declined),
            "/console/declines",
            &html! { (all.declined) " of " (decided) " payments in the last hour" },
        ),
        card(
            "Answered 202 or 5xx",
            all.unknown + all.failed == 0,
            &(all.unknown + all.failed).to_string(),
            "/console/hour",
            &html! { (all.unknown) " gateway unknown, " (all.failed) " failed in the last hour" },
        ),
        card(
            "Gateway (this node)",
            gateway_answers,
            if gateway_answers {
                "reachable"
            } else {
                "circuit open"
            },
            "/console/help#gateway",
            &html! { "calls are " (if gateway_answers { "made" } else { "not made" }) },
        ),
        card(
            "Connections (this node)",
            busy < most,
            &format!("{busy} of {most}"),
            "/console/help#connections",
            &html! { "to the database in use" },
        ),
    ]
}

fn hour(hour: &Hour, all: &Counts) -> Markup {
    let asked = all.executed + all.replayed;
    let replayed = percent(share(all.replayed, asked));
    let keyed = hour.map(|minute| [minute.executed, minute.replayed]);
    let payments = hour.map(|minute| [minute.made, minute.declined]);
    let shares = hour.map(|minute| share(minute.replayed, minute.executed + minute.replayed));
    html! {
        div .charts {
            (Chart {
                id: "requests",
                title: "Requests with a key per minute",
                description: &format!("{} executed and {} replayed in the last hour.", all.executed, all.replayed),
            }.stacked(["executed", "replayed"], &keyed))
            (Chart {
                id: "payments",
                title: "Payments per minute",
                description: &format!("{} made and {} declined in the last hour.", all.made, all.declined),
            }.stacked(["made", "declined"], &payments))
            (Chart {
                id: "replays",
                title: "Share of requests that were replays",
                description: &format!("{replayed} of {asked} requests with a key in the last hour."),
            }.share(&format!("{replayed} over the hour"), &shares))
        }
        p { a href="/console/hour" { "The same in figures" } }
    }
}

/// The minutes with at least one answer, latest first.
fn figures(hour: &Hour) -> Markup {
    let rows = hour
        .iter()
        .rev()
        .enumerate()
        .filter(|(_, minute)| **minute != Counts::default());
    let rows = rows.map(|(minutes_ago, minute)| {
        let replays = share(minute.replayed, minute.executed + minute.replayed);
        let mut cells = vec![Cell::row_name(html! { (minutes_ago) " min ago" })];
        cells.extend([minute.executed, minute.replayed].map(Cell::number));
        cells.push(Cell::number(percent(replays)));
        let rest = [minute.made, minute.declined, minute.unknown, minute.failed];
        cells.extend(rest.map(Cell::number));
        cells
    });
    let titles = [
        "Minute",
        "Executed",
        "Replayed",
        "Replay share",
        "Made",
        "Declined",
        "202",
        "5xx",
    ];
    html::table(&format!("The last {MINUTES} minutes"), &titles, rows)
}

/// Mismatches as a table.
fn mismatches_table(caption: &str, mismatches: &[NotedMismatch]) -> Markup {
    let rows = mismatches.iter().map(|mismatch| {
        let scope = &mismatch.scope;
        let (merchant, operation) = (&scope.merchant_id, &scope.operation);
        vec![
            Cell::text(html::time(mismatch.last_seen_at)),
            Cell::row_name(links::merchant("/console/payments", merchant)),
            Cell::text(operation),
            Cell::text(links::key(merchant, operation, scope.key.as_str())),
            Cell::text(html::foreign(Some(mismatch.changed.join(", ")))),
            Cell::number(mismatch.refusals),
        ]
    });
    html::table(
        caption,
        &[
            "Last seen",
            "Merchant",
            "Operation",
            "Key",
            "What differs",
            "Times",
        ],
        rows,
    )
}

/// Returns `None` if the whole is zero.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_nothing_is_none() {
        assert_eq!(percent(share(0, 0)), "–");
        assert_eq!(percent(share(1, 3)), "33.3 %");
        assert_eq!(percent(share(3, 3)), "100.0 %");
    }
}
