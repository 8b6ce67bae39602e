//! A proxy to the database that can break connections, or stop their data, at a chosen moment.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// Where the proxy breaks a connection, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The request does not arrive.
    Request,
    /// The request is carried out, and its answer does not arrive.
    Answer,
    /// The request does not arrive, and the connection stays open but carries no more data.
    SilentRequest,
    /// The request is carried out, its answer does not arrive, and the connection stays open.
    SilentAnswer,
}

impl Break {
    fn delivers(self) -> bool {
        matches!(self, Self::Answer | Self::SilentAnswer)
    }

    fn is_silent(self) -> bool {
        matches!(self, Self::SilentRequest | Self::SilentAnswer)
    }
}

/// The connections that carry no more data, but are not closed.
#[derive(Clone, Copy, Default)]
struct Silence {
    /// All up to this one, in the order of their arrival.
    up_to: u64,
    /// Later ones, too.
    of_new_ones: bool,
}

/// Breaks on a request that contains `needle`, after `skip` others with it.
struct Trap {
    needle: &'static str,
    skip: usize,
    breaks: Break,
    /// The database also cannot be reached afterwards.
    stays_down: bool,
}

#[derive(Default)]
struct Shared {
    target: Mutex<(String, u16)>,
    trap: Mutex<Option<Trap>>,
    sprung: Mutex<usize>,
    silence: watch::Sender<Silence>,
    connections: AtomicU64,
}

/// It runs on its own thread, because a stopping service waits for the database on the test's thread.
pub struct Proxy {
    address: SocketAddr,
    upstream: PgConnectOptions,
    shared: Arc<Shared>,
    up: watch::Sender<bool>,
    /// Dropped at the end, which ends the thread and all that it carries.
    _running: oneshot::Sender<()>,
}

impl Proxy {
    pub fn start(database: &PgConnectOptions) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("not blocking");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        shared.turn_to(database);
        let up = watch::Sender::new(true);
        let (running, ended) = oneshot::channel::<()>();
        let accepting = accept(listener, Arc::clone(&shared), up.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accepting => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            address,
            upstream: database.clone(),
            shared,
            up,
            _running: running,
        }
    }

    /// The database, at the other end of the wire.
    pub fn options(&self) -> PgConnectOptions {
        let host = self.address.ip().to_string();
        self.upstream.clone().host(&host).port(self.address.port())
    }

    /// New connections go to another database after this, as when an address moves.
    pub fn turn_to(&self, database: &PgConnectOptions) {
        self.shared.turn_to(database);
    }

    pub fn break_at(&self, needle: &'static str, skip: usize, breaks: Break) {
        self.set(needle, skip, breaks, false);
    }

    /// Like [`Proxy::break_at`], but then the database cannot be reached until [`Proxy::mend`].
    pub fn break_for_good_at(&self, needle: &'static str, skip: usize, breaks: Break) {
        self.set(needle, skip, breaks, true);
    }

    fn set(&self, needle: &'static str, skip: usize, breaks: Break, stays_down: bool) {
        *self.shared.trap.lock().expect("the trap") = Some(Trap {
            needle,
            skip,
            breaks,
            stays_down,
        });
    }

    pub fn mend(&self) {
        self.up.send_replace(true);
        self.shared
            .silence
            .send_modify(|silence| silence.of_new_ones = false);
    }

    /// Existing connections carry no more data, but are not closed. New ones work.
    pub fn silence(&self) {
        let last = self.shared.connections.load(Ordering::SeqCst);
        self.shared
            .silence
            .send_modify(|silence| silence.up_to = last);
    }

    /// Like [`Proxy::silence`], but new ones are also accepted without an answer, until [`Proxy::mend`].
    pub fn silence_for_good(&self) {
        self.silence();
        self.shared
            .silence
            .send_modify(|silence| silence.of_new_ones = true);
    }

    /// Closes the existing connections, and each new one at once, until [`Proxy::mend`].
    pub fn go_down(&self) {
        self.up.send_replace(false);
    }

    /// How often it broke.
    pub fn broke(&self) -> usize {
        *self.shared.sprung.lock().expect("the count")
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>, up: watch::Sender<bool>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((client, _)) = listener.accept().await {
        let (shared, up) = (Arc::clone(&shared), up.clone());
        let target = shared.target.lock().expect("the target").clone();
        tokio::spawn(async move {
            let mut is_up = up.subscribe();
            if !*is_up.borrow() {
                return;
            }
            let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let mut silence = shared.silence.subscribe();
            if silence.borrow().of_new_ones {
                let _held = client;
                drop(is_up.wait_for(|up| !up).await);
                return;
            }
            let Ok(server) = TcpStream::connect(target).await else {
                return;
            };
            let (mut client, mut server) = (client, server);
            let is_silent = tokio::select! {
                is_silent = carry(&mut client, &mut server, &shared, &up) => is_silent,
                _ = silence.wait_for(|silence| silence.up_to >= number) => true,
                _ = is_up.wait_for(|up| !up) => false,
            };
            if is_silent {
                // Both ends stay open until they end by themselves, and get no data from each other.
                tokio::select! {
                    _ = async { tokio::join!(swallow(client), swallow(server)) } => {}
                    _ = is_up.wait_for(|up| !up) => {}
                }
            }
        });
    }
}

/// Reads and drops everything until the other side ends.
async fn swallow(mut end: TcpStream) {
    let mut bytes = vec![0; 4096];
    while matches!(end.read(&mut bytes).await, Ok(1..)) {}
}

impl Shared {
    fn turn_to(&self, database: &PgConnectOptions) {
        let target = (database.get_host().to_owned(), database.get_port());
        *self.target.lock().expect("the target") = target;
    }

    /// Returns the break if this request triggers it.
    fn spring(&self, request: &[u8]) -> Option<Trap> {
        let mut set = self.trap.lock().expect("the trap");
        let trap = set.as_mut()?;
        let needle = trap.needle.as_bytes();
        if !request.windows(needle.len()).any(|part| part == needle) {
            return None;
        }
        if trap.skip > 0 {
            trap.skip -= 1;
            return None;
        }
        *self.sprung.lock().expect("the count") += 1;
        set.take()
    }
}

/// Copies bytes both ways until one side ends or the connection breaks. Returns true if it only stopped carrying data.
async fn carry(
    client: &mut TcpStream,
    server: &mut TcpStream,
    shared: &Shared,
    up: &watch::Sender<bool>,
) -> bool {
    let (mut request, mut answer) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return false };
                let request = &request[..length];
                let sprung = shared.spring(request);
                if sprung.as_ref().is_none_or(|trap| trap.breaks.delivers())
                    && server.write_all(request).await.is_err()
                {
                    return false;
                }
                if let Some(trap) = sprung {
                    if trap.breaks.delivers() {
                        drop(server.read(&mut answer).await);
                    }
                    if trap.stays_down {
                        up.send_replace(false);
                    }
                    return trap.breaks.is_silent();
                }
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return false };
                if client.write_all(&answer[..length]).await.is_err() {
                    return false;
                }
            }
        }
    }
}
