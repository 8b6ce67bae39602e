//! The bare endpoint: the fastest possible actix-web handler that reads the same request and sends the same answer.

use std::path::PathBuf;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    /// All headers except those that actix-web sets itself.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// Creates it from a received answer.
    pub fn received(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(body_at) = head.parse(bytes)? else {
            anyhow::bail!("the answer is cut off");
        };
        let headers = head
            .headers
            .iter()
            .filter(|header| {
                !["content-length", "date", "connection"]
                    .iter()
                    .any(|name| header.name.eq_ignore_ascii_case(name))
            })
            .map(|header| {
                let value = std::str::from_utf8(header.value)?;
                Ok((header.name.to_owned(), value.to_owned()))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            status: head.code.context("no status")?,
            headers,
            body: String::from_utf8(bytes[body_at..].to_vec())?,
        })
    }
}

#[derive(Debug, Args)]
pub struct BareArgs {
    /// The answer, as JSON.
    #[arg(long)]
    answer: PathBuf,
}

struct Prepared {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

/// Serves until it is killed.
pub fn serve_bare(args: &BareArgs) -> anyhow::Result<()> {
    let answer: Answer = serde_json::from_slice(&std::fs::read(&args.answer)?)?;
    let headers = answer.headers.iter().map(|(name, value)| {
        Ok((
            HeaderName::try_from(name.as_str())?,
            HeaderValue::try_from(value.as_str())?,
        ))
    });
    let prepared = Arc::new(Prepared {
        status: StatusCode::from_u16(answer.status)?,
        headers: headers.collect::<anyhow::Result<_>>()?,
        body: Bytes::from(answer.body),
    });
    let listener = super::listen()?;
    let app = move || {
        App::new()
            .app_data(Data::from(Arc::clone(&prepared)))
            .route("/v1/payments", web::post().to(answer_all))
    };
    let server = HttpServer::new(app).listen(listener)?.run();
    Ok(actix_web::rt::System::new().block_on(server)?)
}

async fn answer_all(prepared: Data<Prepared>, _body: Bytes) -> HttpResponse {
    let mut response = HttpResponse::build(prepared.status);
    for (name, value) in &prepared.headers {
        response.insert_header((name.clone(), value.clone()));
    }
    response.body(prepared.body.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_but_for_what_actix_sets() {
        let received =
            b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nlocation: /v1/payments/pay_1\r\n\
            idempotent-replayed: true\r\ndate: Tue, 24 Nov 2026 10:36:56 GMT\r\n\r\n{}";
        let answer = Answer::received(received).expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (201, "{}"));
        let names: Vec<&str> = answer.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["location", "idempotent-replayed"]);
        assert!(Answer::received(&received[..30]).is_err());
    }
}
