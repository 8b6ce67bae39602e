//! A proxy in front of a service that fails like networks and proxies: by a script, with one entry for each request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The fault of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It does not arrive, and the connection is closed.
    Lost,
    /// It arrives and is answered; the answer does not arrive, and the connection is closed.
    AnswerLost,
    /// The proxy answers itself, with this.
    Answered(String),
}

/// It runs on a thread of its own: the clients are processes that the test waits for.
pub struct Flaky {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
    _running: oneshot::Sender<()>,
}

impl Flaky {
    /// Before the service at `url`. After the script, requests go through.
    pub fn before(url: &str, script: &[Way]) -> Self {
        let upstream = url.trim_start_matches("http://").to_owned();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("not blocking");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (running, ended) = oneshot::channel::<()>();
        let serving = serve(
            listener,
            upstream,
            script.iter().cloned().collect(),
            Arc::clone(&requests),
        );
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            url: format!("http://{address}"),
            requests,
            _running: running,
        }
    }

    /// The requests so far, each as head and body.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("the requests").clone()
    }
}

async fn serve(
    listener: std::net::TcpListener,
    upstream: String,
    script: VecDeque<Way>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let script = Arc::new(Mutex::new(script));
    while let Ok((client, _)) = listener.accept().await {
        let (upstream, script, requests) =
            (upstream.clone(), Arc::clone(&script), Arc::clone(&requests));
        tokio::spawn(async move {
            // If the client or the service has gone, only this connection ends.
            drop(carry(client, &upstream, &script, &requests).await);
        });
    }
}

/// One request on each connection.
async fn carry(
    mut client: TcpStream,
    upstream: &str,
    script: &Mutex<VecDeque<Way>>,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let request = read_request(&mut client).await?;
    requests.lock().expect("the requests").push(request.clone());
    let way = script.lock().expect("the script").pop_front();
    let answer = match way {
        Some(Way::Lost) => return Ok(()),
        Some(Way::Answered(answer)) => answer.into_bytes(),
        Some(Way::AnswerLost) => {
            ask(upstream, &request).await?;
            return Ok(());
        }
        None => ask(upstream, &request).await?,
    };
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// A head, and the body that it declares.
async fn read_request(client: &mut TcpStream) -> std::io::Result<String> {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = client.read(&mut part).await?;
        read.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let declared = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let declared = declared.map_or(Ok(0), |length| length.trim().parse::<usize>());
            if body.len() >= declared.expect("a length") {
                return Ok(text);
            }
        }
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The whole answer, after which the connection is closed.
async fn ask(upstream: &str, request: &str) -> std::io::Result<Vec<u8>> {
    let (line, rest) = request.split_once("\r\n").expect("a request line");
    let mut server = TcpStream::connect(upstream).await?;
    let kept = rest
        .replace("Connection: keep-alive\r\n", "")
        .replace("connection: keep-alive\r\n", "");
    let asked = format!("{line}\r\nConnection: close\r\n{kept}");
    server.write_all(asked.as_bytes()).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}
