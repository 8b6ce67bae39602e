//! The path of a request through the gateway: API key, fault, idempotency key, execution, fault again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

use super::books::{Books, Settings};
use super::call::{self, Call, Endpoint};
use super::contract;
use super::fault::{Fault, Faults};
use super::form::Params;
use super::http::Request;
use super::keys::Keys;
use super::ledger::{Calls, Ledger};
use super::reply::{ApiError, Reply};
use super::server::Command;

/// Maximum number of recorded requests: enough for any test that reads them, and a bound for long tests.
const MAX_REMEMBERED: usize = 10_000;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRequest {
    pub endpoint: Endpoint,
    pub path: String,
    pub idempotency_key: Option<String>,
    /// `Stripe-Version`
    pub version: Option<String>,
    /// `Stripe-Account`; empty where there was none.
    pub account: String,
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
    /// By account; the key's own is the one without a name.
    pub(super) books: BTreeMap<String, Books>,
    pub(super) settings: Settings,
    /// Fields with other values than in the books, by the kind of object.
    pub(super) misreports: BTreeMap<String, Map<String, Value>>,
    pub(super) keys: Keys,
    pub(super) faults: Faults,
    pub(super) latency: Duration,
    calls: BTreeMap<Endpoint, Calls>,
    requests: VecDeque<SeenRequest>,
}

/// The result of a request before its execution.
enum Admission {
    /// It ends here: a replay, or a refusal.
    Answered(Reply),
    /// It is to be executed after the latency.
    Begun(Call, Duration),
}

impl State {
    pub(super) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger {
            calls: self.calls.clone(),
            faults: self.faults.injected(),
            ..Ledger::default()
        };
        self.books
            .values()
            .for_each(|books| books.add_to(&mut ledger));
        ledger
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
            version: request.version.clone(),
            account: request.account.clone(),
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
        if let Some(known) = key
            .as_deref()
            .and_then(|key| self.keys.lookup(key, &request.path, params))
        {
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
            self.keys.begin(&key, &request.path, params);
        }
        Admission::Begun(call, self.latency)
    }

    fn execute(&mut self, endpoint: Endpoint, call: Call, account: &str) -> Reply {
        let books = self.books.entry(account.to_owned()).or_default();
        let outcome = books.execute(call, self.settings);
        self.count(endpoint).executed += 1;
        outcome.map_or_else(Reply::from, |mut body| {
            misreport(&mut body, &self.misreports);
            Reply::json(200, &body)
        })
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
    /// It continues to its end if the client hangs up, like a real gateway.
    pub(super) async fn answer(&self, request: &Request) -> Option<Reply> {
        if !request
            .bearer
            .as_deref()
            .is_some_and(|key| key.starts_with("sk_test_"))
        {
            return Some(ApiError::unauthorized().into());
        }
        if request.version.as_deref() != Some(contract::api_version()) {
            return Some(ApiError::version(request.version.as_deref()).into());
        }
        if !request.account.is_empty() && !request.account.starts_with("acct_") {
            return Some(ApiError::no_account(&request.account).into());
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
            Fault::LockTimeout => {
                return self.told(Some(
                    Reply::from(ApiError::lock_timeout()).with("Stripe-Should-Retry", "true"),
                ));
            }
            Fault::WrongSecret => return self.told(Some(ApiError::unauthorized().into())),
            Fault::WrongVersion => {
                return self.told(Some(ApiError::version(request.version.as_deref()).into()));
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
            | Fault::StoredFailure
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
        let answer = match fault {
            Fault::StoredFailure => ApiError::internal().into(),
            Fault::StoredError => {
                self.state().execute(endpoint, call, &request.account);
                ApiError::internal().into()
            }
            _ => self.state().execute(endpoint, call, &request.account),
        };
        self.changes.send_replace(());
        linger(fault, release).await;
        if let Some(key) = request.execution_key() {
            self.state().keys.finish(&key, answer.clone());
        }
        answer
    }

    fn told(&self, answer: Option<Reply>) -> Option<Reply> {
        self.changes.send_replace(());
        answer
    }
}

/// Changes fields of the answered objects, at any depth.
fn misreport(value: &mut Value, misreports: &BTreeMap<String, Map<String, Value>>) {
    match value {
        Value::Object(object) => {
            object
                .values_mut()
                .for_each(|inner| misreport(inner, misreports));
            let kind = object.get("object").and_then(Value::as_str);
            if let Some(fields) = kind.and_then(|kind| misreports.get(kind)) {
                object.extend(fields.clone());
            }
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|inner| misreport(inner, misreports)),
        _ => {}
    }
}

async fn linger(fault: Fault, mut release: watch::Receiver<()>) {
    match fault {
        Fault::Slow(pause) => tokio::time::sleep(pause).await,
        // An error means that the gateway is being dropped, with this request.
        Fault::Hold => drop(release.changed().await),
        _ => {}
    }
}
