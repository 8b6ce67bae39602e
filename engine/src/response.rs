//! A stored answer. The stored bytes are the bytes that are sent, the first time and each time after.

use bytes::Bytes;

/// Headers of a connection or of a single message (RFC 9110, 7.6.1), which the server sets each time.
const OF_THE_MESSAGE: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "date",
];

/// Headers that tell a replay from a first answer.
const OF_THE_REPLAY: [&str; 2] = ["idempotent-replayed", "idempotency-key-expires"];

/// Statuses whose answers have no body (RFC 9110, 15.3.5, 15.3.6, 15.4.5).
const WITHOUT_BODY: [u16; 3] = [204, 205, 304];

/// Why an answer cannot be stored: it could not be sent unchanged.
///
/// ```
/// use payonce_engine::{InvalidResponse, StoredResponse};
///
/// let with_body = StoredResponse::new(204, Vec::new(), "gone");
/// assert_eq!(with_body, Err(InvalidResponse::BodyNotAllowed(204)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResponse {
    /// A final answer has a status of 200 to 599; 1xx only announces one.
    #[error("{0} is not the status of a final answer, which is 200 to 599")]
    Status(u16),
    /// It has a body, but an answer with this status has none.
    #[error("an answer with status {0} has no body")]
    BodyNotAllowed(u16),
    /// HTTP allows letters, digits and ``!#$%&'*+-.^_`|~``.
    #[error("{0:?} is not a valid header name")]
    HeaderName(String),
    /// HTTP allows visible ASCII, and spaces and tabs between. The value is not repeated.
    #[error("the value of the header {0} cannot be sent")]
    HeaderValue(String),
    /// The server sets this header itself, for each message: `content-length`, `connection`, `idempotent-replayed`.
    #[error("the header {0} is set for each message, and is not part of a stored answer")]
    HeaderOfTheMessage(String),
}

/// A stored answer.
///
/// [`StoredResponse::new`] refuses an answer that could not be sent unchanged. The engine checks again before it stores one: see
/// [`StoredResponse::check`].
///
/// ```
/// use payonce_engine::StoredResponse;
///
/// let created = StoredResponse::json(201, &["tea"])?.with_header("location", "/orders/1");
/// assert_eq!(&created.body[..], br#"["tea"]"#);
/// assert!(created.check().is_ok());
/// assert!(StoredResponse { status: 99, ..created }.check().is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The HTTP status, 200–599.
    pub status: u16,
    /// Names and values of the headers that belong to the answer, e.g. `content-type` and `location`. A name may occur more than
    /// once, such as `link` or `set-cookie`; such headers keep their order.
    pub headers: Vec<(String, String)>,
    /// The body. Empty with 204, 205 and 304.
    pub body: Bytes,
}

impl StoredResponse {
    /// Creates an answer.
    ///
    /// ```
    /// use payonce_engine::StoredResponse;
    ///
    /// let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    /// let answer = StoredResponse::new(200, headers, "ordered")?;
    /// assert_eq!(&answer.body[..], b"ordered");
    /// # Ok::<(), payonce_engine::InvalidResponse>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidResponse`] if it could not be sent unchanged.
    pub fn new(
        status: u16,
        headers: Vec<(String, String)>,
        body: impl Into<Bytes>,
    ) -> Result<Self, InvalidResponse> {
        let response = Self {
            status,
            headers,
            body: body.into(),
        };
        response.check()?;
        Ok(response)
    }

    /// Creates an answer with a JSON body, which is serialized here, once.
    ///
    /// ```
    /// use payonce_engine::StoredResponse;
    ///
    /// let answer = StoredResponse::json(201, &serde_json::json!({"id": "order-7"}))?;
    /// assert_eq!(answer.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The body cannot be serialized. The status is checked when the answer is stored.
    pub fn json(status: u16, body: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(serde_json::to_vec(body)?),
        })
    }

    /// Adds a header. It keeps other headers of the same name.
    ///
    /// ```
    /// use payonce_engine::StoredResponse;
    ///
    /// let answer = StoredResponse::json(200, &())?
    ///     .with_header("set-cookie", "cart=17")
    ///     .with_header("set-cookie", "seen=yes");
    /// assert_eq!(answer.headers.len(), 3);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Checks that it can be sent unchanged. The engine does this before it stores an answer.
    ///
    /// ```
    /// use payonce_engine::{InvalidResponse, StoredResponse};
    ///
    /// // `json` and `with_header` do not check.
    /// let answer = StoredResponse::json(200, &())?.with_header("x-note", "two\nlines");
    /// assert_eq!(answer.check(), Err(InvalidResponse::HeaderValue("x-note".to_owned())));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidResponse`], the first reason that is found.
    pub fn check(&self) -> Result<(), InvalidResponse> {
        if !(200..=599).contains(&self.status) {
            return Err(InvalidResponse::Status(self.status));
        }
        if WITHOUT_BODY.contains(&self.status) && !self.body.is_empty() {
            return Err(InvalidResponse::BodyNotAllowed(self.status));
        }
        let mut headers = self.headers.iter();
        headers.try_for_each(|(name, value)| check_header(name, value))
    }
}

fn check_header(name: &str, value: &str) -> Result<(), InvalidResponse> {
    if name.is_empty() || !name.bytes().all(is_of_a_token) {
        return Err(InvalidResponse::HeaderName(name.to_owned()));
    }
    let is_named = |other: &&str| name.eq_ignore_ascii_case(other);
    if OF_THE_MESSAGE.iter().chain(&OF_THE_REPLAY).any(is_named) {
        return Err(InvalidResponse::HeaderOfTheMessage(name.to_owned()));
    }
    // Readers of a header trim the space around its value.
    let is_sent = value.trim_matches([' ', '\t']) == value
        && value
            .bytes()
            .all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if is_sent {
        Ok(())
    } else {
        Err(InvalidResponse::HeaderValue(name.to_owned()))
    }
}

/// A `tchar` of RFC 9110, 5.6.2.
fn is_of_a_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(name: &str, value: &str) -> Result<StoredResponse, InvalidResponse> {
        StoredResponse::new(200, vec![(name.to_owned(), value.to_owned())], "body")
    }

    #[test]
    fn a_status_is_one_of_a_final_answer() {
        for status in [200, 201, 402, 500, 599] {
            assert!(
                StoredResponse::new(status, Vec::new(), "body").is_ok(),
                "{status}"
            );
        }
        for status in [0, 99, 100, 101, 199, 600, 999, u16::MAX] {
            let refused = StoredResponse::new(status, Vec::new(), "");
            assert_eq!(refused, Err(InvalidResponse::Status(status)));
        }
    }

    #[test]
    fn some_statuses_have_no_body() {
        for status in [204, 205, 304] {
            assert!(StoredResponse::new(status, Vec::new(), "").is_ok());
            let refused = StoredResponse::new(status, Vec::new(), "body");
            assert_eq!(refused, Err(InvalidResponse::BodyNotAllowed(status)));
        }
    }

    #[test]
    fn a_header_is_one_that_http_allows() {
        for (name, value) in [
            ("Link", "<https://example.com/>; rel=next"),
            ("x-a.b_c~", ""),
            ("etag", "\"a\tb\""),
        ] {
            assert!(with_header(name, value).is_ok(), "{name}");
        }
        for name in ["", "a b", "a:b", "naïve", "a\nb", "a\0"] {
            let refused = with_header(name, "v");
            assert_eq!(refused, Err(InvalidResponse::HeaderName(name.to_owned())));
        }
        for value in [
            " v",
            "v ",
            "\tv",
            "a\r\nset-cookie: b",
            "a\0b",
            "é",
            "\u{7f}",
        ] {
            let refused = with_header("x", value);
            assert_eq!(refused, Err(InvalidResponse::HeaderValue("x".to_owned())));
        }
        for name in ["Content-Length", "transfer-encoding", "Idempotent-Replayed"] {
            let refused = with_header(name, "1");
            let expected = InvalidResponse::HeaderOfTheMessage(name.to_owned());
            assert_eq!(refused, Err(expected));
        }
    }
}
