//! What is sent to a client.

use bytes::Bytes;
use payonce_engine::Answer;

/// Tells a replay from a first answer.
const REPLAYED: &str = "idempotent-replayed";

/// An answer, or a refusal, as it is sent.
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
