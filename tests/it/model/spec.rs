//! The model: which answers a request may have, how often the gateway is called for it, and what the rows are afterwards. It also
//! has the memory of each node: cached answers, and calls at the gateway.

use std::collections::{BTreeMap, BTreeSet};

use super::gateway::Turn;
use super::history::{Op, Request, Step};

/// An answer.
#[derive(Clone, Debug)]
pub struct Expected {
    pub status: u16,
    pub code: Option<&'static str>,
    pub replayed: bool,
    /// How often the gateway is called for it.
    pub calls: usize,
    /// The claim whose answer it is. All answers of a claim are the same, byte for byte.
    pub claim: Option<u64>,
}

/// The result of a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer(Expected),
    /// Its call is at the gateway, which holds it.
    Held,
}

/// The state of a claim whose call is held at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldStands {
    Ours {
        lease_is_over: bool,
    },
    TakenOver,
    /// The process that took it over released it.
    GivenBack,
    /// The key has a claim that was made after this one was released.
    Replaced,
}

/// The possible results of a request that reaches both nodes at once.
#[derive(Debug)]
pub struct Possible {
    pub answers: [Expected; 2],
    pub calls: usize,
    pub after: Model,
}

/// A payment's row. Amounts are in whole units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentView {
    pub state: String,
    pub captured: i64,
    pub refunded: i64,
    pub refunding: i64,
    /// A capture or a cancel is under way.
    pub pending: bool,
}

/// A key's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    pub is_processing: bool,
    pub attempt: i32,
    /// `None` while it is processing.
    pub status: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
enum Stands {
    /// Once its lease is over the claim can be taken over.
    Processing {
        lease_is_over: bool,
    },
    Final {
        status: u16,
    },
}

#[derive(Clone, Debug)]
struct Key {
    request: Request,
    claim: u64,
    attempt: i32,
    stands: Stands,
    is_expired: bool,
}

/// An answer in a node's memory.
#[derive(Clone, Debug)]
struct Known {
    request: Request,
    claim: u64,
    status: u16,
}

/// One attempt at a claim.
#[derive(Clone, Debug)]
struct Attempt {
    request: Request,
    claim: u64,
    attempt: i32,
    node: usize,
    /// False if the key had expired when it was taken, so that its answer is not cached.
    keeps: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    keys: BTreeMap<String, Key>,
    payments: BTreeMap<String, PaymentView>,
    /// The keys that made a refund's row.
    refunds: BTreeSet<String>,
    memory: [BTreeMap<String, Known>; 2],
    held: [Option<Attempt>; 2],
    /// The gateway's answer about a claim, if it was certain.
    said: BTreeMap<u64, Turn>,
    bytes: BTreeMap<u64, Vec<u8>>,
    claims: u64,
    /// Every request, including those that left nothing.
    sent: Vec<Request>,
}

fn answer(status: u16, code: Option<&'static str>, calls: usize) -> Expected {
    Expected {
        status,
        code,
        replayed: false,
        calls,
        claim: None,
    }
}

fn problem(status: u16, code: &'static str, calls: usize) -> Expected {
    answer(status, Some(code), calls)
}

fn replay(claim: u64, status: u16) -> Expected {
    Expected {
        replayed: true,
        claim: Some(claim),
        ..answer(status, None, 0)
    }
}

fn in_use() -> Expected {
    problem(409, "idempotency-key-in-use", 0)
}

fn mismatch() -> Expected {
    problem(422, "idempotency-key-reused", 0)
}

fn expired() -> Expected {
    problem(409, "idempotency-key-expired", 0)
}

/// The decision of a plan, before any call.
enum Decision {
    Call,
    /// Nothing is stored.
    Refuse(Expected),
    /// It is the key's outcome.
    Store(Expected),
}

impl Model {
    pub fn sent(&self) -> &[Request] {
        &self.sent
    }

    pub fn views(&self) -> Vec<(String, PaymentView)> {
        self.payments.clone().into_iter().collect()
    }

    pub fn keys(&self) -> Vec<(String, KeyView)> {
        let view = |key: &Key| match key.stands {
            Stands::Processing { .. } => (true, None),
            Stands::Final { status } => (false, Some(status)),
        };
        let views = self.keys.iter().map(|(name, key)| {
            let (is_processing, status) = view(key);
            let attempt = key.attempt;
            let view = KeyView {
                is_processing,
                attempt,
                status,
            };
            (name.clone(), view)
        });
        views.collect()
    }

    /// The requests with an unknown outcome that are not at the gateway.
    pub fn unfinished(&self) -> Vec<Request> {
        let is_processing = |key: &&Key| matches!(key.stands, Stands::Processing { .. });
        let keys = self.keys.values().filter(is_processing);
        keys.map(|key| key.request.clone()).collect()
    }

    pub fn leases_are_over(&self) -> bool {
        let holds = |key: &Key| {
            matches!(
                key.stands,
                Stands::Processing {
                    lease_is_over: false
                }
            )
        };
        !self.keys.values().any(holds)
    }

    /// A node's call at the gateway.
    pub fn held(&self, node: usize) -> Option<&Request> {
        self.held[node].as_ref().map(|held| &held.request)
    }

    /// The state of the claim of a node's call at the gateway.
    pub fn held_stands(&self, node: usize) -> Option<HeldStands> {
        let held = self.held[node].as_ref()?;
        let key = self.keys.get(&held.request.key);
        Some(match key {
            None => HeldStands::GivenBack,
            Some(key) if key.claim != held.claim => HeldStands::Replaced,
            Some(key) => match key.stands {
                Stands::Processing { lease_is_over } if key.attempt == held.attempt => {
                    HeldStands::Ours { lease_is_over }
                }
                _ => HeldStands::TakenOver,
            },
        })
    }

    /// Returns false for a step about something that does not exist. Such a step is left out.
    pub fn can(&self, step: &Step) -> bool {
        let is_there = |request: &Request| {
            let of = request.op.of();
            of.is_none_or(|of| self.payments.contains_key(of))
        };
        match step {
            Step::Send { request, .. } | Step::Race { request, .. } => is_there(request),
            Step::Hold { request, node } => is_there(request) && self.held[*node].is_none(),
            Step::Open { node, .. } => self.held[*node].is_some(),
            Step::Restart { node } => self.held[*node].is_none(),
            // All calls of the pass are answered alike.
            Step::Recover { node, turn } => self
                .abandoned(*node)
                .iter()
                .all(|key| self.honest(&key.request, key.claim, *turn) == *turn),
            Step::Expire | Step::ExpireAll | Step::CleanUp { .. } | Step::EndLeases => true,
        }
    }

    /// The step as it happens: a gateway that was certain says the same again. Of a payment it need not, as each is one of its
    /// own there: the worst that a late owner may bring is an outcome that contradicts the stored one.
    pub fn made_honest(&self, mut step: Step) -> Step {
        match &mut step {
            Step::Send { request, turn, .. } | Step::Race { request, turn } => {
                let key = self.keys.get(&request.key);
                if let Some(key) = key
                    && matches!(key.stands, Stands::Processing { .. })
                {
                    *turn = self.honest(&key.request, key.claim, *turn);
                }
            }
            Step::Open { node, turn } => {
                if let Some(held) = &self.held[*node] {
                    *turn = self.honest(&held.request, held.claim, *turn);
                }
            }
            _ => {}
        }
        step
    }

    fn honest(&self, request: &Request, claim: u64, turn: Turn) -> Turn {
        match self.said.get(&claim) {
            Some(said) if turn.is_certain() && !matches!(request.op, Op::Pay { .. }) => *said,
            _ => turn,
        }
    }

    pub fn expire(&mut self, with_unfinished: bool) {
        for key in self.keys.values_mut() {
            key.is_expired |= with_unfinished || matches!(key.stands, Stands::Final { .. });
        }
    }

    /// Returns how many keys the clean-up deletes.
    pub fn clean_up(&mut self) -> u64 {
        let before = self.keys.len();
        let is_over = |key: &Key| key.is_expired && matches!(key.stands, Stands::Final { .. });
        self.keys.retain(|_, key| !is_over(key));
        u64::try_from(before - self.keys.len()).expect("a few")
    }

    pub fn end_leases(&mut self) {
        for key in self.keys.values_mut() {
            if let Stands::Processing { lease_is_over } = &mut key.stands {
                *lease_is_over = true;
            }
        }
    }

    pub fn restart(&mut self, node: usize) {
        self.memory[node].clear();
    }

    /// Returns false if the same claim had another answer before.
    pub fn hears(&mut self, expected: &Expected, bytes: &[u8]) -> bool {
        let Some(claim) = expected.claim else {
            return true;
        };
        self.bytes.entry(claim).or_insert_with(|| bytes.to_vec()) == bytes
    }

    /// Returns the result of a request, and updates the model. If `turn` is `None`, the gateway holds its call.
    pub fn request(&mut self, request: &Request, node: usize, turn: Option<Turn>) -> Reply {
        if !self.sent.contains(request) {
            self.sent.push(request.clone());
        }
        if let Some(known) = self.memory[node].get(&request.key) {
            return Reply::Answer(match known.request == *request {
                true => replay(known.claim, known.status),
                false => mismatch(),
            });
        }
        if let Some(held) = &self.held[node]
            && held.request.key == request.key
        {
            return Reply::Answer(match held.request == *request {
                true => in_use(),
                false => mismatch(),
            });
        }
        let Some(key) = self.keys.get(&request.key).cloned() else {
            return self.absent(request, node, turn);
        };
        match key.stands {
            Stands::Final { .. } if key.is_expired => self.absent(request, node, turn),
            _ if key.request != *request => Reply::Answer(mismatch()),
            Stands::Final { status } => {
                self.keep(node, request, key.claim, status);
                Reply::Answer(replay(key.claim, status))
            }
            Stands::Processing {
                lease_is_over: false,
            } => Reply::Answer(in_use()),
            Stands::Processing {
                lease_is_over: true,
            } => {
                let attempt = self.take_over(&request.key, node);
                self.call(attempt, turn)
            }
        }
    }

    /// A request that reaches both nodes at once: one of them is first, and the other meets its claim or its answer. Where the
    /// database was held for so long that a wait for it may have ended, either may also be told that the key is in use.
    pub fn race(&self, request: &Request, turn: Turn, was_slow: bool) -> Vec<Possible> {
        let one = |model: &Model, node: usize| {
            let mut after = model.clone();
            match after.request(request, node, Some(turn)) {
                Reply::Answer(expected) => (expected, after),
                Reply::Held => unreachable!("nothing is held"),
            }
        };
        let mut all = Vec::new();
        let mut add = |first: usize, answers: (Expected, Expected), after: Model| {
            let calls = answers.0.calls + answers.1.calls;
            let answers = match first {
                0 => [answers.0, answers.1],
                _ => [answers.1, answers.0],
            };
            all.push(Possible {
                answers,
                calls,
                after,
            });
        };
        for first in 0..2 {
            let (early, between) = one(self, first);
            let (late, after) = one(&between, 1 - first);
            if early.calls > 0 || was_slow {
                add(first, (early.clone(), in_use()), between);
            }
            add(first, (early, late), after);
        }
        if was_slow {
            add(0, (in_use(), in_use()), self.clone());
        }
        all
    }

    /// Opens the gate of a node's call at the gateway.
    pub fn open(&mut self, node: usize, turn: Turn) -> Expected {
        let held = self.held[node].take().expect("it holds a call");
        let is_ours = self.keys.get(&held.request.key).is_some_and(|key| {
            key.claim == held.claim
                && key.attempt == held.attempt
                && matches!(key.stands, Stands::Processing { .. })
        });
        let expected = match is_ours {
            true => self.called(&held, turn),
            false => self.lost(&held, turn),
        };
        // The call was counted when it was held.
        Expected {
            calls: 0,
            ..expected
        }
    }

    /// A recovery pass. Returns how many calls it makes.
    pub fn recover(&mut self, node: usize, turn: Turn) -> usize {
        let abandoned = self.abandoned(node);
        for key in &abandoned {
            let attempt = self.take_over(&key.request.key, node);
            self.called(&attempt, turn);
        }
        abandoned.len()
    }

    /// The claims that a recovery pass takes over. It leaves out the node's own calls at the gateway.
    fn abandoned(&self, node: usize) -> Vec<Key> {
        let is_here = |key: &Key| {
            let held = self.held[node].as_ref();
            held.is_some_and(|held| held.request.key == key.request.key)
        };
        let is_abandoned = |key: &&Key| {
            matches!(
                key.stands,
                Stands::Processing {
                    lease_is_over: true
                }
            ) && !is_here(key)
        };
        self.keys.values().filter(is_abandoned).cloned().collect()
    }

    /// The key has no row, or it has expired.
    fn absent(&mut self, request: &Request, node: usize, turn: Option<Turn>) -> Reply {
        let is_remembered = match request.op {
            Op::Pay { .. } => self.payments.contains_key(&request.key),
            Op::Refund { .. } => self.refunds.contains(&request.key),
            Op::Capture { .. } | Op::Cancel { .. } => false,
        };
        if is_remembered {
            return Reply::Answer(expired());
        }
        match self.decide(&request.op) {
            Decision::Refuse(expected) => Reply::Answer(expected),
            Decision::Store(expected) => {
                let claim = self.claim(request);
                self.finish(&request.key, expected.status);
                self.keep(node, request, claim, expected.status);
                let claim = Some(claim);
                Reply::Answer(Expected { claim, ..expected })
            }
            Decision::Call => {
                let claim = self.claim(request);
                self.begin(request);
                let attempt = Attempt {
                    request: request.clone(),
                    claim,
                    attempt: 1,
                    node,
                    keeps: true,
                };
                self.call(attempt, turn)
            }
        }
    }

    fn claim(&mut self, request: &Request) -> u64 {
        self.claims += 1;
        let key = Key {
            request: request.clone(),
            claim: self.claims,
            attempt: 1,
            stands: Stands::Processing {
                lease_is_over: false,
            },
            is_expired: false,
        };
        self.keys.insert(request.key.clone(), key);
        self.claims
    }

    fn take_over(&mut self, key: &str, node: usize) -> Attempt {
        let key = self.keys.get_mut(key).expect("a claim");
        key.attempt += 1;
        key.stands = Stands::Processing {
            lease_is_over: false,
        };
        Attempt {
            request: key.request.clone(),
            claim: key.claim,
            attempt: key.attempt,
            node,
            keeps: !key.is_expired,
        }
    }

    fn call(&mut self, attempt: Attempt, turn: Option<Turn>) -> Reply {
        match turn {
            Some(turn) => Reply::Answer(self.called(&attempt, turn)),
            None => {
                let node = attempt.node;
                self.held[node] = Some(attempt);
                Reply::Held
            }
        }
    }

    /// The gateway answers the attempt that holds the claim. An earlier one may have reached it, so only of a first one it is
    /// believed that nothing happened; that a request is wrong is believed always.
    fn called(&mut self, attempt: &Attempt, turn: Turn) -> Expected {
        self.note(attempt, turn);
        let Attempt {
            request,
            claim,
            node,
            ..
        } = attempt;
        let is_first = attempt.attempt == 1;
        let (status, code) = match (turn, &request.op) {
            (Turn::Refuse, _) => {
                self.release(request);
                return problem(422, "gateway-refused", 1);
            }
            (Turn::Nothing, _) if is_first => {
                self.release(request);
                return problem(503, "gateway-unavailable", 1);
            }
            (Turn::Misconfigured, _) => {
                if is_first {
                    self.release(request);
                }
                return problem(503, "gateway-misconfigured", 1);
            }
            (Turn::Nothing | Turn::Unknown, _) => return answer(202, None, 1),
            (Turn::Decline, _) => (402, Some("payment-declined")),
            (Turn::Answer, Op::Pay { .. } | Op::Refund { .. }) => (201, None),
            (Turn::Answer, Op::Capture { .. } | Op::Cancel { .. }) => (200, None),
        };
        self.end(request, turn == Turn::Answer);
        self.finish(&request.key, status);
        if attempt.keeps {
            self.keep(*node, request, *claim, status);
        }
        Expected {
            claim: Some(*claim),
            ..answer(status, code, 1)
        }
    }

    /// The gateway answers an attempt whose claim another process has taken over: nothing changes, and the answer is that of the
    /// new owner.
    fn lost(&mut self, attempt: &Attempt, turn: Turn) -> Expected {
        self.note(attempt, turn);
        let key = self.keys.get(&attempt.request.key).cloned();
        let is_first = attempt.attempt == 1;
        let processing = answer(202, None, 0);
        match turn {
            Turn::Answer | Turn::Decline => match key {
                // Its claim may have been released, and the key used for another request.
                Some(Key {
                    request,
                    claim,
                    stands: Stands::Final { status },
                    is_expired: false,
                    ..
                }) if request == attempt.request => {
                    if attempt.keeps {
                        self.keep(attempt.node, &attempt.request, claim, status);
                    }
                    replay(claim, status)
                }
                _ => processing,
            },
            Turn::Misconfigured if !is_first => problem(503, "gateway-misconfigured", 0),
            Turn::Nothing if !is_first => processing,
            Turn::Unknown => processing,
            // It would be released, and may be released already.
            _ if key.is_some() => processing,
            Turn::Refuse => problem(422, "gateway-refused", 0),
            Turn::Nothing => problem(503, "gateway-unavailable", 0),
            Turn::Misconfigured => problem(503, "gateway-misconfigured", 0),
        }
    }

    fn note(&mut self, attempt: &Attempt, turn: Turn) {
        if turn.is_certain() {
            self.said.entry(attempt.claim).or_insert(turn);
        }
    }

    fn keep(&mut self, node: usize, request: &Request, claim: u64, status: u16) {
        let known = Known {
            request: request.clone(),
            claim,
            status,
        };
        self.memory[node].insert(request.key.clone(), known);
    }

    fn finish(&mut self, key: &str, status: u16) {
        let key = self.keys.get_mut(key).expect("a claim");
        key.stands = Stands::Final { status };
    }

    fn payment(&mut self, of: &str) -> &mut PaymentView {
        self.payments.get_mut(of).expect("a payment that is there")
    }

    fn decide(&self, op: &Op) -> Decision {
        let Some(payment) = op.of().and_then(|of| self.payments.get(of)) else {
            return Decision::Call;
        };
        let busy = Decision::Refuse(problem(409, "payment-busy", 0));
        let conflict = Decision::Store(problem(409, "payment-state-conflict", 0));
        let too_large = Decision::Store(problem(422, "amount-too-large", 0));
        if payment.pending || payment.state == "PROCESSING" {
            return busy;
        }
        match op {
            Op::Capture { .. } | Op::Cancel { .. } if payment.state != "AUTHORIZED" => conflict,
            Op::Capture { amount, .. } if *amount > 10 => too_large,
            Op::Refund { amount, .. } => {
                if payment.state != "SUCCESS" && payment.state != "PARTIALLY_REFUNDED" {
                    return conflict;
                }
                let left = payment.captured - payment.refunded - payment.refunding;
                match *amount {
                    amount if amount <= left => Decision::Call,
                    amount if amount <= left + payment.refunding => busy,
                    _ => too_large,
                }
            }
            _ => Decision::Call,
        }
    }

    /// The rows that a claim writes in addition to its key.
    fn begin(&mut self, request: &Request) {
        match &request.op {
            Op::Pay { .. } => {
                let payment = PaymentView {
                    state: "PROCESSING".to_owned(),
                    captured: 0,
                    refunded: 0,
                    refunding: 0,
                    pending: false,
                };
                self.payments.insert(request.key.clone(), payment);
            }
            Op::Capture { of, .. } | Op::Cancel { of } => self.payment(of).pending = true,
            Op::Refund { of, amount } => {
                self.payment(of).refunding += amount;
                self.refunds.insert(request.key.clone());
            }
        }
    }

    /// The claim is released, as if it had never been made.
    fn release(&mut self, request: &Request) {
        self.keys.remove(&request.key);
        match &request.op {
            Op::Pay { .. } => drop(self.payments.remove(&request.key)),
            Op::Capture { of, .. } | Op::Cancel { of } => self.payment(of).pending = false,
            Op::Refund { of, amount } => {
                self.payment(of).refunding -= amount;
                self.refunds.remove(&request.key);
            }
        }
    }

    fn end(&mut self, request: &Request, is_done: bool) {
        match &request.op {
            Op::Pay { amount, manual } => {
                let payment = self.payment(&request.key);
                let (state, captured) = match (is_done, manual) {
                    (false, _) => ("FAILED", 0),
                    (true, true) => ("AUTHORIZED", 0),
                    (true, false) => ("SUCCESS", *amount),
                };
                state.clone_into(&mut payment.state);
                payment.captured = captured;
            }
            Op::Capture { of, amount } => {
                let payment = self.payment(of);
                payment.pending = false;
                if is_done {
                    "SUCCESS".clone_into(&mut payment.state);
                    payment.captured = *amount;
                }
            }
            Op::Cancel { of } => {
                let payment = self.payment(of);
                payment.pending = false;
                if is_done {
                    "CANCELED".clone_into(&mut payment.state);
                }
            }
            Op::Refund { of, amount } => {
                let payment = self.payment(of);
                payment.refunding -= amount;
                if is_done {
                    payment.refunded += amount;
                    let state = match payment.refunded == payment.captured {
                        true => "REFUNDED",
                        false => "PARTIALLY_REFUNDED",
                    };
                    state.clone_into(&mut payment.state);
                }
            }
        }
    }
}
