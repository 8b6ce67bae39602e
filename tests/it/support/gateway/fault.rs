//! What goes wrong with a request, by script or by chance.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::call::Endpoint;

/// The fault of one request.
///
/// "Executed" means that the ledger has it, unless its idempotency key was known already: then the fault affects the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: for a script that leaves a request alone.
    None,
    /// 500 before execution begins. Nothing is done, and nothing is stored under the key.
    ErrorBefore,
    /// Executed, then answered by 500 once, as by a proxy in front that lost the answer. The true answer is stored under
    /// the key, and a retry gets it.
    ErrorAfter,
    /// Executed, and the 500 itself is stored under the key and replayed, as Stripe does when it fails late. The key never returns
    /// the true result: only reading the intent, or searching, does.
    StoredError,
    /// Not executed, and the 500 is stored under the key and replayed: the key never shows that nothing was done.
    StoredFailure,
    /// The connection is closed. Nothing is done.
    DropBefore,
    /// Executed, then the connection is closed before the first byte of an answer.
    DropAfter,
    /// Executed, then answered late. The key is in use until then.
    Slow(Duration),
    /// Executed, then answered when the test says so with [`TestGateway::release`](super::TestGateway::release): `Slow` for tests
    /// that do not measure time. The key is in use until then.
    Hold,
    /// 429 with `Retry-After: 1`. Nothing is done.
    Throttle,
    /// 409 `lock_timeout` with `Stripe-Should-Retry: true`. Nothing is done.
    LockTimeout,
    /// 401, as by a secret key that is wrong for a while. Nothing is done.
    WrongSecret,
    /// 400, as by an API version that Stripe does not have. Nothing is done.
    WrongVersion,
    /// The connection is closed with nothing done, and for this long every new connection is refused.
    Refuse(Duration),
}

impl Fault {
    /// What [`TestGateway::chaos`](super::TestGateway::chaos) picks from: all faults that a retry with the same key overcomes. Not
    /// among them are stored failures, faults that an operator has to fix, and [`Fault::Hold`], which a test must end.
    pub const CHAOS: &[Fault] = &[
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Slow(Duration::from_millis(300)),
        Fault::Throttle,
        Fault::Refuse(Duration::from_millis(100)),
    ];

    /// Faults that an operator has to fix: `chaos_of(seed, 100, Fault::MISCONFIGURED)` is a time in which nothing works.
    pub const MISCONFIGURED: &[Fault] = &[Fault::WrongSecret, Fault::WrongVersion];

    /// The name under which the ledger counts it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::ErrorBefore => "error_before",
            Fault::ErrorAfter => "error_after",
            Fault::StoredError => "stored_error",
            Fault::StoredFailure => "stored_failure",
            Fault::LockTimeout => "lock_timeout",
            Fault::WrongSecret => "wrong_secret",
            Fault::WrongVersion => "wrong_version",
            Fault::DropBefore => "drop_before",
            Fault::DropAfter => "drop_after",
            Fault::Slow(_) => "slow",
            Fault::Hold => "hold",
            Fault::Throttle => "throttle",
            Fault::Refuse(_) => "refuse",
        }
    }
}

/// The faults to come, and a count of those that came.
#[derive(Default)]
pub(super) struct Faults {
    script: BTreeMap<Endpoint, VecDeque<Fault>>,
    chaos: Option<Chaos>,
    injected: BTreeMap<&'static str, usize>,
}

struct Chaos {
    rng: StdRng,
    percent: u32,
    kinds: Vec<Fault>,
}

impl Faults {
    pub(super) fn script(&mut self, faults: impl IntoIterator<Item = (Endpoint, Fault)>) {
        for (endpoint, fault) in faults {
            self.script.entry(endpoint).or_default().push_back(fault);
        }
    }

    pub(super) fn scripted(&self) -> usize {
        self.script.values().map(VecDeque::len).sum()
    }

    pub(super) fn chaos(&mut self, seed: u64, percent: u32, kinds: &[Fault]) {
        assert!(percent <= 100, "a share of all requests, in percent");
        assert!(!kinds.is_empty(), "chaos needs something to pick from");
        self.chaos = Some(Chaos {
            rng: StdRng::seed_from_u64(seed),
            percent,
            kinds: kinds.to_vec(),
        });
    }

    pub(super) fn calm(&mut self) {
        self.chaos = None;
        self.script.clear();
    }

    /// The fault of a request that has just arrived.
    pub(super) fn next(&mut self, endpoint: Endpoint) -> Fault {
        let fault = match self.script.get_mut(&endpoint).and_then(VecDeque::pop_front) {
            Some(fault) => fault,
            None => self.chaos.as_mut().map_or(Fault::None, Chaos::pick),
        };
        if fault != Fault::None {
            *self.injected.entry(fault.name()).or_default() += 1;
        }
        fault
    }

    pub(super) fn injected(&self) -> BTreeMap<&'static str, usize> {
        self.injected.clone()
    }
}

impl Chaos {
    fn pick(&mut self) -> Fault {
        if self.rng.random_range(0..100) >= self.percent {
            return Fault::None;
        }
        self.kinds[self.rng.random_range(0..self.kinds.len())]
    }
}
