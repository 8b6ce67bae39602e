//! The building blocks of pages.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{DOCTYPE, Markup, Render, html};

use crate::money::{Amount, Currency};

/// Identifiers of up to this many characters are shown whole; longer ones are shortened in the middle.
const LONGEST_WHOLE_ID: usize = 22;

/// Number of characters that are shown at the beginning and at the end of a longer one: an id begins with a time, and ends with random
/// digits.
const ID_HEAD: usize = 9;
const ID_TAIL: usize = 8;

/// A page. `head` is added to its head, and `header` is shown beside the brand.
pub(super) fn frame(title: &str, head: &Markup, header: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                (head)
                title { (title) " – payonce console" }
                link rel="stylesheet" href="/console/assets/console.css";
                link rel="icon" type="image/svg+xml" href="/console/assets/icon.svg";
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header { p .brand { a href="/console" { "payonce" } } (header) }
                main #main tabindex="-1" { h1 { (heading(title)) } (body) }
                footer { p { "payonce " (env!("CARGO_PKG_VERSION")) ". All times are UTC." } }
            }
        }
    }
}

/// A title that ends with an id keeps it on one line on a narrow screen.
fn heading(title: &str) -> Markup {
    match title.rsplit_once(' ') {
        Some((what, name)) if name.chars().count() > LONGEST_WHOLE_ID => {
            html! { (what) " " (id(name)) }
        }
        _ => html! { (title) },
    }
}

/// A page for a reader who is not signed in.
pub(super) fn bare_page(title: &str, body: &Markup) -> Markup {
    frame(title, &html! {}, &html! {}, body)
}

/// A reply with a page.
pub(super) fn reply(status: StatusCode, page: Markup) -> HttpResponse {
    HttpResponse::build(status)
        .content_type(ContentType::html())
        .body(page.into_string())
}

/// A time, in a form for people and in one for programs.
pub(super) fn time(moment: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(moment.to_rfc3339_opts(SecondsFormat::Micros, true)) {
            (moment.format("%Y-%m-%d %H:%M:%S%.3f"))
        }
    }
}

/// A time that may be missing.
pub(super) fn time_or_dash(moment: Option<DateTime<Utc>>) -> Markup {
    match moment {
        Some(moment) => time(moment),
        None => html! { "–" },
    }
}

/// A text that may be missing.
pub(super) fn or_dash(text: Option<impl AsRef<str>>) -> String {
    text.map_or_else(|| "–".to_owned(), |text| text.as_ref().to_owned())
}

/// A text from outside. It is isolated, so that characters of another writing direction do not affect the text around it.
pub(super) fn foreign(text: Option<impl AsRef<str>>) -> Markup {
    html! { bdi { (or_dash(text)) } }
}

/// An identifier on one line. The style sheet shows the beginning and the end of a long one. Its title, and the text that is
/// copied, is the whole.
pub(super) fn id(text: &str) -> Markup {
    let length = text.chars().count();
    if length <= LONGEST_WHOLE_ID {
        return html! { code { (text) } };
    }
    let at = |index| {
        text.char_indices()
            .nth(index)
            .map_or(text.len(), |(at, _)| at)
    };
    let (head, rest) = text.split_at(at(ID_HEAD));
    let (middle, tail) = rest.split_at(at(length - ID_TAIL) - head.len());
    html! { code .id title=(text) { (head) span .middle { (middle) } (tail) } }
}

/// An amount with its currency, in groups of three digits: `18,450.00 USD`. In minor units if the currency is unknown.
pub(super) fn amount(minor: i64, currency: &str) -> String {
    match Currency::from_code(currency) {
        Some(known) => format!(
            "{} {currency}",
            grouped(&Amount::from_minor(minor, known).to_string())
        ),
        None => format!("{} minor units of {currency}", grouped(&minor.to_string())),
    }
}

/// A decimal number with commas between the thousands.
fn grouped(number: &str) -> String {
    let whole = number.find('.').unwrap_or(number.len());
    let mut text = String::with_capacity(number.len() + number.len() / 3);
    for (at, character) in number.char_indices() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(character);
    }
    text
}

/// A state: a sign, its name, and in addition a colour.
pub(super) fn state(name: &str) -> Markup {
    let (tone, sign) = match name {
        "SUCCESS" | "COMPLETED" => ("good", "✓"),
        "AUTHORIZED" => ("held", "◐"),
        "PROCESSING" | "PENDING" => ("wait", "…"),
        "REQUIRES_ACTION" => ("wait", "!"),
        "FAILED" => ("bad", "✕"),
        "CANCELED" => ("flat", "⊘"),
        "REFUNDED" | "PARTIALLY_REFUNDED" => ("flat", "↩"),
        _ => ("flat", "•"),
    };
    html! { span class={ "state " (tone) } { span aria-hidden="true" { (sign) " " } (name) } }
}

/// A cell of a table.
pub(super) struct Cell {
    content: Markup,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    RowName,
}

impl Cell {
    fn new(content: impl Render, kind: Kind) -> Self {
        let content = content.render();
        Self { content, kind }
    }

    /// A cell of text.
    pub(super) fn text(content: impl Render) -> Self {
        Self::new(content, Kind::Text)
    }

    /// A number or an amount, right-aligned and on one line.
    pub(super) fn number(content: impl Render) -> Self {
        Self::new(content, Kind::Number)
    }

    /// The header of the row.
    pub(super) fn row_name(content: impl Render) -> Self {
        Self::new(content, Kind::RowName)
    }

    /// On a narrow screen a row is a card, and each cell has its column's title. The roles are explicit because browsers drop those
    /// of a table that is not laid out as one.
    fn render(&self, title: &str) -> Markup {
        let content = &self.content;
        match self.kind {
            Kind::Text => html! { td role="cell" data-label=(title) { (content) } },
            Kind::Number => html! { td .number role="cell" data-label=(title) { (content) } },
            Kind::RowName => {
                html! { th scope="row" role="rowheader" data-label=(title) { (content) } }
            }
        }
    }
}

/// A table. If it is wider than the screen it scrolls on its own, by keyboard, too. On a narrow screen each row is a card.
pub(super) fn table(
    caption: &str,
    titles: &[&str],
    rows: impl Iterator<Item = Vec<Cell>>,
) -> Markup {
    let rows: Vec<Vec<Cell>> = rows.collect();
    let is_number = |column: usize| {
        let cell = rows.first().and_then(|row| row.get(column));
        cell.is_some_and(|cell| cell.kind == Kind::Number)
    };
    html! {
        div .scroll role="region" tabindex="0" aria-label=(caption) {
            table role="table" {
                caption { (caption) }
                thead role="rowgroup" {
                    tr role="row" {
                        @for (column, title) in titles.iter().enumerate() {
                            th .number[is_number(column)] scope="col" role="columnheader" { (title) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @if rows.is_empty() {
                        tr role="row" { td .none role="cell" colspan=(titles.len()) { "None." } }
                    }
                    @for row in &rows {
                        tr role="row" {
                            @for (cell, title) in row.iter().zip(titles) { (cell.render(title)) }
                        }
                    }
                }
            }
        }
    }
}

/// Names and their values.
pub(super) fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! {
        dl .facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } }
    }
}

/// A field of a search form.
pub(super) fn field(name: &str, label: &str, value: &str, longest: u16, hint: &str) -> Markup {
    html! {
        div {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(value) maxlength=(longest) placeholder=[(!hint.is_empty()).then_some(hint)]
                autocomplete="off" spellcheck="false";
        }
    }
}

/// A choice of a search form: any, or one of `names`.
pub(super) fn choice<'a>(
    name: &str,
    label: &str,
    chosen: &str,
    names: impl Iterator<Item = &'a str>,
) -> Markup {
    html! {
        div {
            label for=(name) { (label) }
            select id=(name) name=(name) {
                option value="" { "any" }
                @for name in names { option value=(name) selected[chosen == name] { (name) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_grouped_and_keep_their_decimals() {
        for (minor, currency, text) in [
            (0, "USD", "0.00 USD"),
            (99_999, "USD", "999.99 USD"),
            (100_000, "USD", "1,000.00 USD"),
            (1_845_000, "USD", "18,450.00 USD"),
            (999_999_999_999_999, "USD", "9,999,999,999,999.99 USD"),
            (100, "JPY", "100 JPY"),
            (1_234_567, "JPY", "1,234,567 JPY"),
            (1_234_567, "KWD", "1,234.567 KWD"),
            (1234, "???", "1,234 minor units of ???"),
        ] {
            assert_eq!(amount(minor, currency), text);
        }
    }

    #[test]
    fn a_long_id_is_cut_in_the_middle_and_whole_in_its_title() {
        let long = "pay_01a20d23-3703-7632-b6d1-06cc9c2811da";
        let shown = id(long).into_string();
        assert!(shown.contains(&format!("title=\"{long}\"")), "{shown}");
        assert!(shown.contains(">pay_01a20<span"), "{shown}");
        assert!(shown.contains("</span>9c2811da<"), "{shown}");
        assert_eq!(id("order-1").into_string(), "<code>order-1</code>");
        let many = "ü".repeat(255);
        let end = format!("</span>{}</code>", "ü".repeat(8));
        assert!(id(&many).into_string().ends_with(&end));
    }

    #[test]
    fn each_state_differs_by_more_than_its_colour() {
        let sign = |name| state(name).into_string();
        assert!(sign("SUCCESS").contains('✓'));
        assert!(sign("AUTHORIZED").contains("held") && sign("AUTHORIZED").contains('◐'));
        assert!(sign("FAILED").contains('✕'));
    }
}
