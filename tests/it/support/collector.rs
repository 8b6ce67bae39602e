//! A collector of traces: as much of OTLP/HTTP as an exporter needs, on a real socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// Records the requests that it gets.
pub struct Collector {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let received = Arc::default();
        let kept = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { address, received }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests, unchanged.
    pub fn bytes(&self) -> Vec<u8> {
        self.received.lock().expect("what came").concat()
    }

    pub fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let received = self.received.lock().expect("what came");
        let decoded = received
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(&**body));
        decoded.collect::<Result<_, _>>().expect("OTLP")
    }

    pub fn spans(&self) -> Vec<Span> {
        let resources = self
            .requests()
            .into_iter()
            .flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

/// Answers the requests of one connection.
fn serve(mut stream: TcpStream, kept: &Mutex<Vec<Vec<u8>>>) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(body_at)) = head.parse(&buffer) {
            let length = head
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case("content-length"));
            let length =
                length.and_then(|h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok());
            let end = body_at + length.expect("a length");
            if buffer.len() >= end {
                assert_eq!((head.method, head.path), (Some("POST"), Some("/v1/traces")));
                kept.lock()
                    .expect("what came")
                    .push(buffer[body_at..end].to_vec());
                buffer.drain(..end);
                let reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                if stream.write_all(reply).is_err() {
                    return;
                }
                continue;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

/// An attribute of a span, as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}
