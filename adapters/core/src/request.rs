//! What a request asks for, and how it is signed.

use std::fmt;

use payonce_engine::{CanonicalFields, Fingerprinted};

use crate::canonical;

/// A request, as an adapter sees it.
///
/// ```no_run
/// # fn sign(
/// #     route: payonce_http::Route,
/// #     key: payonce_engine::IdempotencyKey,
/// # ) -> Result<payonce_engine::SignedRequest, payonce_http::Refusal> {
/// use payonce_http::Request;
///
/// let request = Request {
///     method: "POST",
///     path: "/customers/7/orders",
///     query: None,
///     content_type: Some(b"application/json"),
///     is_encoded: false,
///     signed_headers: Vec::new(),
///     body: br#"{"sku": "tea"}"#,
/// };
/// route.sign("acme".to_owned(), key, &request)
/// # }
/// ```
pub struct Request<'a> {
    /// The method, e.g. `POST`.
    pub method: &'a str,
    /// The path, with the values of its parameters, e.g. `/customers/7/orders`.
    pub path: &'a str,
    /// What follows `?`.
    pub query: Option<&'a str>,
    /// The value of `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Whether there is a `Content-Encoding`. The body is then signed by its bytes.
    pub is_encoded: bool,
    /// Names and values of the headers that the route signs.
    pub signed_headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: &'a [u8],
}

impl Request<'_> {
    pub(crate) fn form(&self, unsigned_fields: &[String]) -> Form {
        let is_json = !self.is_encoded && self.content_type.is_some_and(is_json);
        let mut fields = canonical::fields_of(self.body, is_json, unsigned_fields);
        fields.push(("method".to_owned(), self.method.to_owned()));
        fields.push(("path".to_owned(), self.path.to_owned()));
        if let Some(query) = self.query {
            fields.push(("query".to_owned(), query.to_owned()));
        }
        for (name, value) in &self.signed_headers {
            fields.push((format!("header {name}"), value.escape_ascii().to_string()));
        }
        Form(fields)
    }
}

/// `application/json`, or a type that ends in `+json` (RFC 6839, 3.1).
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|&byte| byte == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    essence == b"application/json" || essence.ends_with(b"+json")
}

/// The canonical form of a request.
pub(crate) struct Form(Vec<(String, String)>);

impl Fingerprinted for Form {
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        for (path, value) in &self.0 {
            fields.insert(path.clone(), value);
        }
        Ok(())
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<'static> {
        Request {
            method: "POST",
            path: "/orders",
            query: None,
            content_type: Some(b"application/json; charset=utf-8"),
            is_encoded: false,
            signed_headers: Vec::new(),
            body: br#"{"a": 1}"#,
        }
    }

    #[test]
    fn each_part_of_a_request_is_signed() {
        let changed: [fn(&mut Request); 6] = [
            |request| request.method = "PUT",
            |request| request.path = "/orders/1",
            |request| request.query = Some(""),
            |request| request.body = b"{}",
            |request| request.signed_headers = vec![("x".to_owned(), b"1".to_vec())],
            |request| request.is_encoded = true,
        ];
        for (index, change) in changed.into_iter().enumerate() {
            let mut other = request();
            change(&mut other);
            assert_ne!(request().form(&[]).0, other.form(&[]).0, "change {index}");
        }
    }

    #[test]
    fn a_body_is_json_by_its_type() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON;charset=utf-8", true),
            ("application/merge-patch+json", true),
            ("text/plain", false),
            ("application/jsonl", false),
        ] {
            assert_eq!(is_json(content_type.as_bytes()), expected, "{content_type}");
        }
    }
}
