//! What is sent to a client.

use bytes::Bytes;
use payonce_engine::Answer;

/// Tells a replay from a first answer.
const REPLAYED: &str = "idempotent-replayed";

/// An answer or a refusal, in the form in which it is sent.
///
/// ```
/// use std::sync::Arc;
///
/// use payonce_http::Reply;
/// use payonce_engine::{Answer, StoredResponse};
///
/// let response = Arc::new(StoredResponse::json(201, &"ordered")?);
/// let replay = Answer { response, replayed: true, expires_at: "2026-11-25T10:36:56Z".parse()? };
/// let reply = Reply::from(replay);
/// assert_eq!(reply.headers[1], ("idempotent-replayed".to_owned(), "true".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let mut headers = answer.response.headers.clone();
        if answer.replayed {
            headers.push((REPLAYED.to_owned(), "true".to_owned()));
        }
        Self {
            status: answer.response.status,
            headers,
            body: answer.response.body.clone(),
        }
    }
}
