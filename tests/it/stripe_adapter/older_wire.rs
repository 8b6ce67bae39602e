//! A wire to `localstripe`, which speaks an older version of Stripe's API: parameters that it does not know yet are removed from
//! requests, and the one that it needs instead is added. Answers are passed on unchanged except for one word: localstripe calls
//! every error an `invalid_request_error`, and Stripe calls a decline a `card_error`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What localstripe does not know, by the beginning of the name.
const LEFT_OUT: [&str; 5] = [
    "automatic_payment_methods",
    "cancellation_reason",
    "created[",
    "error_on_requires_action",
    "limit",
];

/// Starts the proxy, and returns its base URL. It ends with the test's runtime.
pub async fn to(upstream: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let upstream = upstream.to_owned();
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(carry(stream, http.clone(), upstream.clone()));
        }
    });
    format!("http://{address}")
}

/// Carries one request and its answer.
async fn carry(mut stream: TcpStream, http: reqwest::Client, upstream: String) {
    let Some((method, target, authorization, body)) = read(&mut stream).await else {
        return;
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let is_charge = method == "POST" && path == "/v1/payment_intents";
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let url = format!("{upstream}{path}?{}", translated(query, false));
    let answer = http
        .request(method, url)
        .header("Authorization", authorization)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(translated(&body, is_charge))
        .send()
        .await
        .expect("localstripe's answer");
    let status = answer.status();
    let mut body = answer.text().await.expect("its body");
    if status == reqwest::StatusCode::PAYMENT_REQUIRED {
        body = body.replace("invalid_request_error", "card_error");
    }
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // The adapter may have hung up.
    let _ = stream.write_all([head, body].concat().as_bytes()).await;
}

fn translated(form: &str, is_charge: bool) -> String {
    let known = form_urlencoded::parse(form.as_bytes())
        .filter(|(name, _)| !LEFT_OUT.iter().any(|left_out| name.starts_with(left_out)))
        .filter(|(_, value)| value != "latest_charge");
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(known);
    if is_charge {
        form.append_pair("payment_method_types[]", "card");
    }
    form.finish()
}

/// The method, target, `Authorization` and body of the next request.
async fn read(stream: &mut TcpStream) -> Option<(String, String, String, String)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = request.parse(&bytes) else {
            continue;
        };
        let header = |name: &str| {
            let found = request.headers.iter();
            let mut found = found.filter(|header| header.name.eq_ignore_ascii_case(name));
            found
                .next()
                .map(|header| String::from_utf8_lossy(header.value).into_owned())
        };
        let body_length: usize =
            header("Content-Length").map_or(0, |n| n.parse().expect("a length"));
        if let Some(body) = bytes.get(length..length + body_length) {
            return Some((
                request.method?.to_owned(),
                request.path?.to_owned(),
                header("Authorization")?,
                String::from_utf8(body.to_vec()).ok()?,
            ));
        }
    }
}
