//! A gateway to test against: an HTTP server in this process that speaks Stripe's wire format, keeps Stripe's idempotency
//! rules, fails on command, and keeps books of its own.
//!
//! The books ([`Ledger`]) show what happened to the money, independently of the answers. A test subjects payonce to faults, and
//! then compares its database with them.
//!
//! The server has a thread and a runtime of its own: `#[sqlx::test]` runs on a current-thread runtime that a blocking test
//! body would starve, and child processes must get answers while the test waits for them.
//!
//! It reads HTTP from the socket itself, because a framework always answers, and half of the faults must not.
//!
//! ```ignore
//! let gateway = TestGateway::start();
//! gateway.script([(Endpoint::Charge, Fault::DropAfter)]);
//! // … payonce, with PAYONCE_STRIPE_API_BASE = gateway.url(), takes a payment …
//! assert_eq!(gateway.ledger().only_charge(&payment_id).amount, 9_999);
//! ```

mod books;
mod call;
mod cards;
mod contract;
mod fault;
mod form;
mod http;
mod intent;
mod keys;
mod ledger;
mod lists;
mod reply;
mod server;
mod state;
mod units;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub use self::call::Endpoint;
pub use self::fault::Fault;
pub use self::ledger::{Calls, ChargeEntry, ChargeStatus, Ledger, RefundEntry};
pub use self::state::SeenRequest;

use self::intent::RefundStatus;
use self::server::Command;
use self::state::Shared;

/// A secret key that the gateway accepts. It accepts every `sk_test_…`.
pub const SECRET_KEY: &str = "sk_test_payonce";

/// How long [`TestGateway::until_received`] and similar functions wait before they fail the test: far longer than any event takes,
/// so that only an event that never happens exceeds it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway. It stops when it is dropped.
///
/// Every method may be called from any thread and any runtime.
pub struct TestGateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl TestGateway {
    /// Starts a gateway without faults and latency on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let socket = server::bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = socket.local_addr().expect("a bound socket has an address");
        let (listening, listens) = std::sync::mpsc::channel();
        let (commands, inbox) = unbounded_channel();
        let shared = Arc::new(Shared::new(commands.clone()));
        let thread = std::thread::Builder::new()
            .name("test-gateway".into())
            .spawn({
                let shared = shared.clone();
                move || server::run(socket, shared, inbox, listening)
            })
            .expect("a thread for the gateway");
        listens.recv().expect("the gateway's thread listens");
        Self {
            address,
            shared,
            commands,
            thread: Some(thread),
        }
    }

    /// The base URL, `http://127.0.0.1:port`. It stays the same through [`refuse`](Self::refuse) and
    /// [`accept`](Self::accept).
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happened to the money, up to now.
    pub fn ledger(&self) -> Ledger {
        self.shared.state().ledger()
    }

    /// How often an endpoint was called.
    pub fn calls(&self, endpoint: Endpoint) -> Calls {
        self.shared.state().calls(endpoint)
    }

    /// The latest requests to an endpoint, oldest first: at most 10,000 of all endpoints are remembered.
    pub fn requests(&self, endpoint: Endpoint) -> Vec<SeenRequest> {
        self.shared.state().requests(endpoint)
    }

    /// Appends faults to the script. Each endpoint takes its own in the order given, one for each request received, [`Fault::None`]
    /// for a request without a fault. The script comes before chaos.
    pub fn script(&self, faults: impl IntoIterator<Item = (Endpoint, Fault)>) {
        self.shared.state().faults.script(faults);
    }

    /// Scripted faults that no request has taken yet.
    pub fn unused_faults(&self) -> usize {
        self.shared.state().faults.scripted()
    }

    /// From now on `percent` of all requests get a fault, each kind as often as the others. The kinds are
    /// [`Fault::CHAOS`]; for each at 5 % ask for five times their number.
    ///
    /// The seed determines the sequence of faults; the clients' timing decides which request gets which.
    pub fn chaos(&self, seed: u64, percent: u32) {
        self.chaos_of(seed, percent, Fault::CHAOS);
    }

    /// [`chaos`](Self::chaos) with faults of the test's own choice. One that is listed twice comes twice as often.
    pub fn chaos_of(&self, seed: u64, percent: u32, kinds: &[Fault]) {
        self.shared.state().faults.chaos(seed, percent, kinds);
    }

    /// Ends all faults: chaos, the rest of the script, held answers and refusal. Only the latency stays.
    pub fn calm(&self) {
        self.shared.state().faults.calm();
        self.release();
        self.accept();
    }

    /// How long the gateway works on each execution before it takes effect. Meanwhile the key is in use.
    pub fn latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// For how long a new intent is not yet found by search. Stripe's own search is up to a minute late.
    pub fn search_lag(&self, lag: Duration) {
        self.shared.state().settings.search_lag = lag;
    }

    /// Refuses raw card numbers from now on, as Stripe does by default.
    pub fn refuse_raw_cards(&self) {
        self.shared.state().settings.no_raw_cards = true;
    }

    /// From now on a card that asks for authentication leaves its intent in `requires_action`, whatever the client wanted.
    pub fn wait_for_authentication(&self) {
        self.shared.state().settings.always_waits = true;
    }

    /// From now on each refund is `pending` until [`end_refunds`](Self::end_refunds); without it, only those of Stripe's cards
    /// 4000000000005126 and 4000000000007726 are.
    pub fn delay_refunds(&self) {
        self.shared.state().settings.refunds_take_time = true;
    }

    /// From now on a refund is done at once again.
    pub fn hasten_refunds(&self) {
        self.shared.state().settings.refunds_take_time = false;
    }

    /// Ends all refunds that are `pending`: they succeed, or fail and the charge is no longer refunded by them. Returns how many.
    pub fn end_refunds(&self, succeed: bool) -> usize {
        let status = match succeed {
            true => RefundStatus::Succeeded,
            false => RefundStatus::Failed,
        };
        let mut state = self.shared.state();
        state
            .books
            .values_mut()
            .map(|books| books.end_refunds(status))
            .sum()
    }

    /// Makes all intents and refunds older. The keys stay: see [`forget_keys`](Self::forget_keys).
    pub fn age(&self, by: Duration) {
        let mut state = self.shared.state();
        state.books.values_mut().for_each(|books| books.age(by));
    }

    /// From now on, answers show these fields in each object of a kind (`payment_intent`, `refund`, …), whatever the books have.
    /// Without fields, answers are correct again.
    pub fn misreport(&self, kind: &str, fields: serde_json::Value) {
        let fields = fields.as_object().cloned().unwrap_or_default();
        self.shared
            .state()
            .misreports
            .insert(kind.to_owned(), fields);
    }

    /// Forgets all finished idempotency keys, as Stripe does after a day. The books stay.
    pub fn forget_keys(&self) {
        self.shared.state().keys.forget();
    }

    /// Forgets the finished idempotency keys of these payments and refunds, as Stripe does after a day.
    pub fn forget_keys_of(&self, ids: &HashSet<String>) {
        self.shared.state().keys.forget_those_of(ids);
    }

    /// Releases the answers that [`Fault::Hold`] holds back now.
    pub fn release(&self) {
        self.shared.release();
    }

    /// Closes the port and all idle connections. After it returns, connecting is refused. Requests in progress are still answered.
    ///
    /// A client with a connection in its pool may need a moment to notice that it is closed. A request which it sends
    /// there is lost without a trace, not refused; use a fresh client where the difference matters.
    pub fn refuse(&self) {
        self.order(|done| Command::Close { done });
    }

    /// Ends the time of [`Fault::Refuse`] now. A port that [`refuse`](Self::refuse) closed stays closed.
    pub fn end_scripted_refusal(&self) {
        self.order(|done| Command::EndPause { done });
    }

    /// Opens the port again.
    pub fn accept(&self) {
        self.order(|done| Command::Open { done });
    }

    /// Waits until an endpoint has received `n` requests in all.
    pub async fn until_received(&self, endpoint: Endpoint, n: usize) {
        self.until(&format!("{n} × {endpoint:?} received"), || {
            self.calls(endpoint).received >= n
        })
        .await;
    }

    /// Waits until an endpoint has executed `n` requests in all.
    pub async fn until_executed(&self, endpoint: Endpoint, n: usize) {
        self.until(&format!("{n} × {endpoint:?} executed"), || {
            self.calls(endpoint).executed >= n
        })
        .await;
    }

    async fn until(&self, what: &str, happened: impl Fn() -> bool) {
        let mut changes = self.shared.changes();
        let waiting = async {
            while !happened() {
                changes
                    .changed()
                    .await
                    .expect("the sender lives in self.shared");
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("the gateway waited {PATIENCE:?} in vain for: {what}");
        }
    }

    /// Blocking is harmless here even on a current-thread runtime: the gateway answers from its own thread at once.
    fn order(&self, command: impl FnOnce(std::sync::mpsc::Sender<()>) -> Command) {
        let (done, wait) = std::sync::mpsc::channel();
        self.commands
            .send(command(done))
            .expect("the gateway's thread has not ended");
        wait.recv()
            .expect("the gateway's thread carries out each order");
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        // Both fail only when the thread has panicked, and that has been printed already.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
