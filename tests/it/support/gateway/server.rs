//! The gateway's thread: its port, which can be closed and opened, and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};

use super::http;
use super::state::Shared;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The commands to the thread. `done` gets a message when the command is carried out.
pub(super) enum Command {
    /// Refuse connections until `Open`.
    Close {
        done: Sender<()>,
    },
    /// Refuse connections for a while. Without effect when they are refused already.
    CloseFor {
        pause: Duration,
        done: oneshot::Sender<()>,
    },
    /// Accept connections.
    Open {
        done: Sender<()>,
    },
    /// Act as if the time of `CloseFor` were over.
    EndPause {
        done: Sender<()>,
    },
    Stop,
}

/// The port.
enum Door {
    Open(TcpListener),
    /// Bound, but not listening: connecting is refused, and nobody else can be given the port meanwhile.
    Closed {
        reserved: TcpSocket,
        /// `None` if only a command opens it.
        until: Option<tokio::time::Instant>,
    },
}

/// The state that all connections share.
#[derive(Clone)]
struct Connections {
    shared: Arc<Shared>,
    /// Counts closings of the door, so that a busy connection notices one later.
    closings: watch::Sender<u64>,
    /// How many connections wait for a request.
    idle: watch::Sender<usize>,
}

/// A socket on a port that is kept through closing and opening: the next one is bound before the last one is closed
/// (SO_REUSEPORT), so that nobody else on the machine is given the port in between.
pub(super) fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Earlier connections linger on the port.
    socket
        .set_reuseaddr(true)
        .expect("SO_REUSEADDR is known everywhere");
    socket
        .set_reuseport(true)
        .expect("SO_REUSEPORT is known everywhere");
    socket.bind(address).expect("a free port on the loopback");
    socket
}

/// Runs the gateway on this thread until `Stop`. Connections end with it. `listening` is answered once it listens.
pub(super) fn run(
    socket: TcpSocket,
    shared: Arc<Shared>,
    inbox: UnboundedReceiver<Command>,
    listening: Sender<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the gateway");
    runtime.block_on(async {
        let listener = socket.listen(BACKLOG).expect("a bound socket can listen");
        // Fails when the test has given up waiting.
        let _ = listening.send(());
        serve(listener, shared, inbox).await;
    });
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut inbox: UnboundedReceiver<Command>) {
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    let connections = Connections {
        shared,
        closings: watch::Sender::new(0),
        idle: watch::Sender::new(0),
    };
    let mut door = Door::Open(listener);
    loop {
        // Commands first: after a command to close, no connection may be accepted.
        tokio::select! {
            biased;
            command = inbox.recv() => match command {
                None | Some(Command::Stop) => return,
                Some(Command::Close { done }) => {
                    door = door.close(address, None);
                    connections.close_idle().await;
                    // Fails when the test has given up waiting.
                    let _ = done.send(());
                }
                Some(Command::CloseFor { pause, done }) => {
                    if matches!(door, Door::Open(_)) {
                        door = door.close(address, Some(tokio::time::Instant::now() + pause));
                        connections.close_idle().await;
                    }
                    let _ = done.send(());
                }
                Some(Command::Open { done }) => {
                    door = door.open();
                    let _ = done.send(());
                }
                Some(Command::EndPause { done }) => {
                    if matches!(door, Door::Closed { until: Some(_), .. }) {
                        door = door.open();
                    }
                    let _ = done.send(());
                }
            },
            arrival = door.next() => match arrival {
                Arrival::Client(stream) => connections.begin(stream),
                Arrival::EndOfPause => door = door.open(),
            },
        }
    }
}

enum Arrival {
    Client(TcpStream),
    EndOfPause,
}

impl Door {
    async fn next(&self) -> Arrival {
        match self {
            Door::Open(listener) => loop {
                // The error is that of one connection, or a temporary shortage; the next may succeed.
                match listener.accept().await {
                    Ok((stream, _)) => return Arrival::Client(stream),
                    Err(_) => crate::support::pause().await,
                }
            },
            Door::Closed {
                until: Some(until), ..
            } => {
                tokio::time::sleep_until(*until).await;
                Arrival::EndOfPause
            }
            Door::Closed { until: None, .. } => std::future::pending().await,
        }
    }

    fn close(self, address: SocketAddr, until: Option<tokio::time::Instant>) -> Self {
        let reserved = match self {
            Door::Closed { reserved, .. } => reserved,
            Door::Open(listener) => {
                let reserved = bound(address);
                drop(listener);
                reserved
            }
        };
        Door::Closed { reserved, until }
    }

    fn open(self) -> Self {
        match self {
            Door::Closed { reserved, .. } => {
                Door::Open(reserved.listen(BACKLOG).expect("a bound socket can listen"))
            }
            open => open,
        }
    }
}

impl Connections {
    /// Ends the connections that wait for a request, and makes the others end after their answer.
    async fn close_idle(&self) {
        self.closings.send_modify(|closings| *closings += 1);
        let mut idle = self.idle.subscribe();
        // Fails only without a sender, and there is one in self.
        let _ = idle.wait_for(|idle| *idle == 0).await;
    }

    /// Subscribes here, not in the task: the door may close before that runs for the first time.
    fn begin(&self, stream: TcpStream) {
        let closings = self.closings.subscribe();
        tokio::spawn(self.clone().serve(stream, closings));
    }

    async fn serve(self, mut stream: TcpStream, mut closings: watch::Receiver<u64>) {
        // Answers are small, and must not be delayed.
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::new();
        loop {
            if buffer.is_empty() && !self.await_bytes(&stream, &mut closings).await {
                return;
            }
            // An unreadable request is a mistake in the test, and the message is for its author.
            let request = match http::read_request(&mut stream, &mut buffer).await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => return eprintln!("test gateway: {error}"),
            };
            let Some(reply) = self.shared.answer(&request).await else {
                return;
            };
            let keep_alive = request.keep_alive && !closings.has_changed().unwrap_or(true);
            // The client may have gone; the effects stay.
            let written = http::write_reply(&mut stream, &reply, keep_alive).await;
            if written.is_err() || !keep_alive {
                return;
            }
        }
    }

    /// Returns false if the door was closed before anything arrived.
    async fn await_bytes(&self, stream: &TcpStream, closings: &mut watch::Receiver<u64>) -> bool {
        self.idle.send_modify(|idle| *idle += 1);
        let came = tokio::select! {
            biased;
            _ = closings.changed() => false,
            ready = stream.readable() => ready.is_ok(),
        };
        self.idle.send_modify(|idle| *idle -= 1);
        came
    }
}
