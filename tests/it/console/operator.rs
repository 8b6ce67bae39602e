//! An operator with a browser that runs no script.

use std::time::Duration;

use payonce::idempotency::IdempotencyConfig;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

use crate::support::scripted::{ScriptedGateway, Turn};
use crate::support::service::{Service, Setup};

pub const TOKEN: &str = "the console's token in the tests";

/// All pages that have an address of their own.
pub const PAGES: [&str; 9] = [
    "/console",
    "/console/payments",
    "/console/declines",
    "/console/keys",
    "/console/stuck",
    "/console/merchants",
    "/console/audit",
    "/console/hour",
    "/console/help",
];

pub fn setup() -> Setup {
    Setup {
        console_token: Some(SecretString::from(TOKEN)),
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    }
}

/// A service with a console, in which only the operator resolves abandoned claims.
pub async fn service(db: &PgConnectOptions) -> Service {
    Service::start_with(db, setup()).await
}

/// The same, with a gateway that loses its answers; leases end at once.
pub async fn service_with(db: &PgConnectOptions, turns: &[Turn]) -> Service {
    let gateway = ScriptedGateway::new(turns);
    let setup = Setup {
        idempotency: IdempotencyConfig::default().with_retry_interval(Duration::from_millis(1)),
        ..setup()
    };
    let mut service =
        Service::start_on(db, setup, gateway.clone(), Duration::from_millis(300)).await;
    service.gateway = gateway;
    service
}

/// A reply.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Page {
    async fn of(response: Response) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.expect("a body"),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All values of an attribute.
    pub fn values(&self, attribute: &str) -> Vec<String> {
        let begin = format!(" {attribute}=\"");
        let parts = self.text.split(begin.as_str()).skip(1);
        parts
            .filter_map(|part| Some(part.split_once('"')?.0.replace("&amp;", "&")))
            .collect()
    }

    /// The token in the page's forms.
    pub fn csrf(&self) -> String {
        let (_, rest) = self
            .text
            .split_once("name=\"csrf\" value=\"")
            .expect("a form with a proof");
        rest.split_once('"').expect("its end").0.to_owned()
    }

    /// The address of the link with this text.
    pub fn link(&self, name: &str) -> Option<String> {
        let (before, _) = self.text.split_once(&format!(">{name}</a>"))?;
        let (_, tag) = before.rsplit_once("href=\"")?;
        Some(tag.split_once('"')?.0.replace("&amp;", "&"))
    }

    /// The texts of a column's cells, without their markup, by its title.
    pub fn column(&self, title: &str) -> Vec<String> {
        let begin = format!(" data-label=\"{title}\">");
        let cells = self.text.split(begin.as_str()).skip(1);
        cells
            .map(|rest| {
                let end = rest
                    .find("</td>")
                    .into_iter()
                    .chain(rest.find("</th>"))
                    .min();
                without_tags(&rest[..end.expect("the cell's end")])
            })
            .collect()
    }

    #[track_caller]
    pub fn shows(&self, text: &str) {
        assert!(self.text.contains(text), "{text:?} is not in {}", self.text);
    }

    #[track_caller]
    pub fn hides(&self, text: &str) {
        assert!(!self.text.contains(text), "{text:?} is in {}", self.text);
    }
}

/// An operator with a browser.
pub struct Operator {
    pub url: String,
    pub cookie: Option<String>,
    client: Client,
}

impl Operator {
    pub fn at(service: &Service) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(20))
            .build();
        Self {
            url: service.url.clone(),
            cookie: None,
            client: client.expect("a client"),
        }
    }

    /// One who has signed in.
    pub async fn signed_in(service: &Service, name: &str) -> Self {
        let mut operator = Self::at(service);
        let page = operator.sign_in(name, TOKEN).await;
        assert_eq!(page.status, 303, "{}", page.text);
        operator
    }

    /// The same cookie, at another node.
    pub fn moved_to(&self, service: &Service) -> Self {
        Self {
            cookie: self.cookie.clone(),
            ..Self::at(service)
        }
    }

    pub async fn sign_in(&mut self, name: &str, token: &str) -> Page {
        self.sign_in_with(&[("operator", name), ("token", token)])
            .await
    }

    /// Sends the form with these fields.
    pub async fn sign_in_with(&mut self, form: &[(&str, &str)]) -> Page {
        let page = self.post("/console/sign-in", form).await;
        if let Some(cookie) = page.header("set-cookie") {
            self.cookie = cookie.split(';').next().map(str::to_owned);
        }
        page
    }

    pub async fn get(&self, path: &str) -> Page {
        self.send(self.client.get(format!("{}{path}", self.url)))
            .await
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Page {
        let request = self.client.post(format!("{}{path}", self.url)).form(form);
        self.send(request).await
    }

    /// Like a browser that uses TLS to a proxy.
    pub async fn post_by_tls(&self, path: &str, form: &[(&str, &str)]) -> Page {
        let request = self.client.post(format!("{}{path}", self.url)).form(form);
        self.send(request.header("x-forwarded-proto", "https"))
            .await
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Page {
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        Page::of(request.send().await.expect("an answer")).await
    }
}

fn without_tags(markup: &str) -> String {
    let mut text = String::new();
    for part in markup.split('<') {
        let (_, shown) = part.split_once('>').unwrap_or(("", part));
        text.push_str(shown);
    }
    text
}

/// A text as an address's parameter.
pub fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The address of a key of `create_payment`.
pub fn key_path(merchant: &str, key: &str) -> String {
    format!(
        "/console/key?merchant={merchant}&operation=create_payment&key={}",
        encoded(key)
    )
}

/// The audit's rows, oldest first: operator, action, key and outcome.
pub async fn audit(service: &Service) -> Vec<(String, String, String, Option<String>)> {
    sqlx::query_as(
        "select operator, action, merchant_id, outcome from operator_actions order by action_id",
    )
    .fetch_all(&service.pool)
    .await
    .expect("the audit")
}

/// After this, no row can be written there.
pub async fn break_audit(service: &Service) {
    sqlx::query("alter table operator_actions add constraint broken check (false) not valid")
        .execute(&service.pool)
        .await
        .expect("a broken audit");
}
