//! The way of a request through the gateway: API key, fault, idempotency key, execution, fault again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

use super::books::Books;
use super::call::{self, Call, Endpoint};
use super::fault::{Fault, Faults};
use super::form::Params;
use super::http::Request;
use super::keys::Keys;
use super::ledger::{Calls, Ledger};
use super::reply::{ApiError, Reply};
use super::server::Command;

/// How many requests are remembered: enough for any test that looks at them, and a bound for those that run long.
const MAX_REMEMBERED: usize = 10_000;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRequest {
    pub endpoint: Endpoint,
    pub path: String,
    pub idempotency_key: Option<String>,
    /// Decoded and sorted by name. Card numbers and CVCs are in here.
    pub params: Vec<(String, String)>,
}

impl SeenRequest {
    /// A parameter's value.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What the test's threads and the gateway's thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    releases: watch::Sender<()>,
    commands: UnboundedSender<Command>,
}

/// Changed only under the lock, which is never held across a wait.
#[derive(Default)]
pub(super) struct State {
    pub(super) books: Books,
    pub(super) keys: Keys,
    pub(super) faults: Faults,
    pub(super) latency: Duration,
    calls: BTreeMap<Endpoint, Calls>,
    requests: VecDeque<SeenRequest>,
}

/// What became of a request up to its execution.
enum Admission {
    /// It ends here: a replay, or a refusal.
    Answered(Reply),
    /// It is to be executed after the latency.
    Begun(Call, Duration),
}

impl State {
    pub(super) fn ledger(&self) -> Ledger {
        Ledger {
            calls: self.calls.clone(),
            faults: self.faults.injected(),
            ..self.books.ledger()
        }
    }

    pub(super) fn calls(&self, endpoint: Endpoint) -> Calls {
        self.calls.get(&endpoint).copied().unwrap_or_default()
    }

    pub(super) fn requests(&self, endpoint: Endpoint) -> Vec<SeenRequest> {
        self.requests
            .iter()
            .filter(|request| request.endpoint == endpoint)
            .cloned()
            .collect()
    }

    fn count(&mut self, endpoint: Endpoint) -> &mut Calls {
        self.calls.entry(endpoint).or_default()
    }

    fn receive(&mut self, endpoint: Endpoint, request: &Request, params: &Params) -> Fault {
        self.count(endpoint).received += 1;
        if self.requests.len() == MAX_REMEMBERED {
            self.requests.pop_front();
        }
        self.requests.push_back(SeenRequest {
            endpoint,
            path: request.path.clone(),
            idempotency_key: request.idempotency_key.clone(),
            params: params.pairs().to_vec(),
        });
        self.faults.next(endpoint)
    }

    fn admit(
        &mut self,
        endpoint: Endpoint,
        id: &str,
        request: &Request,
        params: &Params,
    ) -> Admission {
        let key = request.execution_key();
        if let Some(known) = key.and_then(|key| self.keys.lookup(key, &request.path, params)) {
            if known
                .headers
                .iter()
                .any(|(name, _)| *name == "Idempotent-Replayed")
            {
                self.count(endpoint).replayed += 1;
            }
            return Admission::Answered(known);
        }
        let call = match Call::parse(endpoint, id, params) {
            Ok(call) => call,
            Err(invalid) => return Admission::Answered(invalid.into()),
        };
        if let Some(key) = key {
            self.keys.begin(key, &request.path, params);
        }
        Admission::Begun(call, self.latency)
    }

    fn execute(&mut self, endpoint: Endpoint, call: Call) -> Reply {
        let outcome = self.books.execute(call);
        self.count(endpoint).executed += 1;
        outcome.map_or_else(Reply::from, |body| Reply::json(200, &body))
    }
}

impl Shared {
    pub(super) fn new(commands: UnboundedSender<Command>) -> Self {
        Self {
            state: Mutex::default(),
            changes: watch::Sender::default(),
            releases: watch::Sender::default(),
            commands,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked with the lock held has failed already; the gateway need not fail the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each request received and each execution.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn release(&self) {
        self.releases.send_replace(());
    }

    /// The answer to a request, or `None`: close the connection without one.
    ///
    /// It goes on to its end when the client has hung up, as a real gateway does.
    pub(super) async fn answer(&self, request: &Request) -> Option<Reply> {
        if !request
            .bearer
            .as_deref()
            .is_some_and(|key| key.starts_with("sk_test_"))
        {
            return Some(ApiError::unauthorized().into());
        }
        let Some((endpoint, id)) = call::route(&request.method, &request.path) else {
            return Some(ApiError::unknown_url(&request.method, &request.path).into());
        };
        let params = Params::parse(request.parameters());
        // From here on, so that a release which the test gives after it saw the execution is not missed.
        let release = self.releases.subscribe();
        let fault = self.state().receive(endpoint, request, &params);
        match fault {
            Fault::DropBefore => return self.told(None),
            Fault::ErrorBefore => return self.told(Some(ApiError::internal().into())),
            Fault::Throttle => {
                return self.told(Some(
                    Reply::from(ApiError::rate_limited()).with("Retry-After", "1"),
                ));
            }
            Fault::Refuse(pause) => {
                let (done, closed) = oneshot::channel();
                // Waits for it, so that a client which sees its connection closed and comes back finds the port closed too.
                // Both fail only when the gateway is about to stop, and then connections are refused anyway.
                let _ = self.commands.send(Command::CloseFor { pause, done });
                let _ = closed.await;
                return self.told(None);
            }
            Fault::None
            | Fault::ErrorAfter
            | Fault::StoredError
            | Fault::DropAfter
            | Fault::Slow(_)
            | Fault::Hold => {}
        }
        let admission = self.state().admit(endpoint, id, request, &params);
        self.changes.send_replace(());
        let answer = match admission {
            Admission::Answered(answer) => {
                linger(fault, release).await;
                answer
            }
            Admission::Begun(call, latency) => {
                if !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                self.carry_out(endpoint, call, request, fault, release)
                    .await
            }
        };
        match fault {
            Fault::ErrorAfter => Some(ApiError::internal().into()),
            Fault::DropAfter => None,
            _ => Some(answer),
        }
    }

    async fn carry_out(
        &self,
        endpoint: Endpoint,
        call: Call,
        request: &Request,
        fault: Fault,
        release: watch::Receiver<()>,
    ) -> Reply {
        let mut answer = self.state().execute(endpoint, call);
        self.changes.send_replace(());
        if fault == Fault::StoredError {
            answer = ApiError::internal().into();
        }
        linger(fault, release).await;
        if let Some(key) = request.execution_key() {
            self.state().keys.finish(key, answer.clone());
        }
        answer
    }

    fn told(&self, answer: Option<Reply>) -> Option<Reply> {
        self.changes.send_replace(());
        answer
    }
}

async fn linger(fault: Fault, mut release: watch::Receiver<()>) {
    match fault {
        Fault::Slow(pause) => tokio::time::sleep(pause).await,
        // An error: the gateway is being dropped, and with it this request.
        Fault::Hold => drop(release.changed().await),
        _ => {}
    }
}
