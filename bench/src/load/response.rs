//! Parses an answer from the bytes received so far.

/// The parts of an answer that the generator needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// `Idempotent-Replayed`, if there is one.
    pub replayed: Option<bool>,
    /// Where the body begins.
    pub body_at: usize,
    /// Head and body together.
    pub length: usize,
}

/// The bytes are not an answer that the generator can parse.
#[derive(Debug, PartialEq, Eq)]
pub struct BadResponse(pub &'static str);

/// Room for more headers than any of the variants sends.
const MAX_HEADERS: usize = 32;

/// Parses the answer at the start of `bytes`. Returns `None` while it is incomplete.
pub fn parse(bytes: &[u8]) -> Result<Option<Response>, BadResponse> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let body_at = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadResponse("it is no HTTP/1.1 response")),
    };
    let status = head.code.ok_or(BadResponse("it has no status"))?;
    let value = |name: &str| {
        let mut found = head.headers.iter();
        found
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    // Chunked answers are not supported; none of the variants sends them.
    let body: usize = value("content-length")
        .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok())
        .ok_or(BadResponse("it has no Content-Length"))?;
    let replayed = value("idempotent-replayed").map(|value| value == b"true");
    let length = body_at + body;
    Ok((bytes.len() >= length).then_some(Response {
        status,
        replayed,
        body_at,
        length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] =
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nidempotent-replayed: true\r\n\r\n{}";

    #[test]
    fn an_answer_is_read_when_all_of_it_is_there() {
        for arrived in 0..ANSWER.len() {
            assert_eq!(parse(&ANSWER[..arrived]), Ok(None), "{arrived} bytes");
        }
        let response = Response {
            status: 201,
            replayed: Some(true),
            body_at: ANSWER.len() - 2,
            length: ANSWER.len(),
        };
        assert_eq!(parse(ANSWER), Ok(Some(response)));
        let and_the_next = [ANSWER, ANSWER].concat();
        assert_eq!(parse(&and_the_next), Ok(Some(response)));
    }

    #[test]
    fn a_replay_is_told_from_a_first_answer() {
        for (header, replayed) in [
            ("Idempotent-Replayed: false\r\n", Some(false)),
            ("IDEMPOTENT-REPLAYED: true\r\n", Some(true)),
            ("", None),
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\n{header}Content-Length: 0\r\n\r\n");
            let response = parse(answer.as_bytes()).expect("read").expect("whole");
            assert_eq!(response.replayed, replayed, "{header}");
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Err(BadResponse("it has no Content-Length")));
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }
}
