//! The model: which answers a key may have. It knows of no database, node, lease or cache, only of what was asked and told.

use std::collections::BTreeMap;

use crate::support::scripted::Turn;

use super::history::{Op, Step};

/// One answer that is allowed.
#[derive(Clone, Debug)]
pub struct Expected {
    pub status: u16,
    pub code: Option<&'static str>,
    pub replayed: bool,
    /// How often the gateway is called for it.
    pub calls: usize,
    /// Those of the first answer.
    pub bytes: Option<Vec<u8>>,
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

#[derive(Debug)]
enum Stands {
    /// Once its lease is over the claim can be taken over.
    Processing { lease_is_over: bool },
    Final {
        status: u16,
        bytes: Option<Vec<u8>>,
        is_expired: bool,
    },
}

#[derive(Debug)]
struct Key {
    step: Step,
    stands: Stands,
}

#[derive(Default)]
pub struct Model {
    keys: BTreeMap<String, Key>,
    payments: BTreeMap<String, PaymentView>,
    /// Every request, also those that left nothing.
    sent: Vec<Step>,
}

const CALLED: usize = 1;

fn problem(status: u16, code: &'static str, calls: usize) -> Expected {
    Expected {
        status,
        code: Some(code),
        replayed: false,
        calls,
        bytes: None,
    }
}

fn done(status: u16, calls: usize) -> Expected {
    Expected {
        status,
        code: None,
        replayed: false,
        calls,
        bytes: None,
    }
}

/// What a plan decides, before anything is called.
enum Decision {
    Call,
    /// Nothing is stored.
    Refuse(Expected),
    /// It is the key's outcome.
    Store(Expected),
}

impl Model {
    pub fn sent(&self) -> &[Step] {
        &self.sent
    }

    pub fn views(&self) -> Vec<(String, PaymentView)> {
        self.payments.clone().into_iter().collect()
    }

    pub fn processing(&self) -> i64 {
        i64::try_from(self.unfinished().len()).expect("a few")
    }

    /// The requests whose outcome is not known.
    pub fn unfinished(&self) -> Vec<Step> {
        self.keys
            .values()
            .filter(|key| matches!(key.stands, Stands::Processing { .. }))
            .map(|key| key.step.clone())
            .collect()
    }

    /// A key that made nothing is absent once it is over, unless a node has its answer in memory: the histories leave it out.
    pub fn expire(&mut self) {
        for key in self.keys.values_mut() {
            let makes = matches!(key.step.op, Op::Pay { .. } | Op::Refund { .. });
            if let Stands::Final {
                is_expired,
                status: 201 | 402,
                ..
            } = &mut key.stands
                && makes
            {
                *is_expired = true;
            }
        }
    }

    pub fn end_leases(&mut self) {
        for key in self.keys.values_mut() {
            if let Stands::Processing { lease_is_over } = &mut key.stands {
                *lease_is_over = true;
            }
        }
    }

    /// The first answer's bytes are every later one's.
    pub fn remember(&mut self, step: &Step, answer: &[u8]) {
        if let Some(Key {
            stands:
                Stands::Final {
                    bytes: bytes @ None,
                    ..
                },
            ..
        }) = self.keys.get_mut(&step.key)
        {
            *bytes = Some(answer.to_vec());
        }
    }

    /// The answers that a request may have; the model is what it is after them.
    pub fn request(&mut self, step: &Step) -> Vec<Expected> {
        if !self
            .sent
            .iter()
            .any(|sent| sent.key == step.key && sent.op == step.op)
        {
            self.sent.push(step.clone());
        }
        let Some(key) = self.keys.get(&step.key) else {
            return vec![self.first(step)];
        };
        let is_same = key.step.op == step.op;
        let mismatch = problem(422, "idempotency-key-reused", 0);
        match &key.stands {
            Stands::Processing { .. } if !is_same => vec![mismatch],
            Stands::Processing {
                lease_is_over: false,
            } => vec![problem(409, "idempotency-key-in-use", 0)],
            Stands::Processing {
                lease_is_over: true,
            } => vec![self.again(step)],
            Stands::Final {
                status,
                bytes,
                is_expired,
            } => {
                let replay = Expected {
                    replayed: true,
                    bytes: bytes.clone(),
                    ..done(*status, 0)
                };
                let known = if is_same { replay } else { mismatch };
                match is_expired {
                    // A node that has the answer in memory keeps it until the time that it was told.
                    true => {
                        vec![known, problem(409, "idempotency-key-expired", 0)]
                    }
                    false => vec![known],
                }
            }
        }
    }

    fn first(&mut self, step: &Step) -> Expected {
        match self.decide(&step.op) {
            Decision::Refuse(expected) => return expected,
            Decision::Store(expected) => {
                self.store(step, expected.status);
                return expected;
            }
            Decision::Call => {}
        }
        match step.turn {
            Turn::Nothing => problem(503, "gateway-unavailable", CALLED),
            Turn::Misconfigured => problem(503, "gateway-misconfigured", CALLED),
            turn => {
                self.begin(step);
                self.called(step, turn)
            }
        }
    }

    /// The claim is taken over. An earlier attempt may have reached the gateway, so "nothing happened" is not believed.
    fn again(&mut self, step: &Step) -> Expected {
        self.called(step, step.turn)
    }

    fn called(&mut self, step: &Step, turn: Turn) -> Expected {
        let is_done = match turn {
            Turn::Answer => true,
            Turn::Decline => false,
            _ => {
                let stands = Stands::Processing {
                    lease_is_over: false,
                };
                let step = step.clone();
                self.keys.insert(step.key.clone(), Key { step, stands });
                return match turn {
                    Turn::Misconfigured => problem(503, "gateway-misconfigured", CALLED),
                    _ => done(202, CALLED),
                };
            }
        };
        self.end(step, is_done);
        let expected = match (is_done, &step.op) {
            (false, _) => problem(402, "payment-declined", CALLED),
            (true, Op::Pay { .. } | Op::Refund { .. }) => done(201, CALLED),
            (true, _) => done(200, CALLED),
        };
        self.store(step, expected.status);
        expected
    }

    fn store(&mut self, step: &Step, status: u16) {
        let stands = Stands::Final {
            status,
            bytes: None,
            is_expired: false,
        };
        let step = step.clone();
        self.keys.insert(step.key.clone(), Key { step, stands });
    }

    fn payment(&mut self, of: &str) -> &mut PaymentView {
        self.payments.get_mut(of).expect("a payment that is there")
    }

    fn decide(&self, op: &Op) -> Decision {
        let (Op::Capture { of, .. } | Op::Cancel { of } | Op::Refund { of, .. }) = op else {
            return Decision::Call;
        };
        let Some(payment) = self.payments.get(of) else {
            return Decision::Refuse(problem(404, "not-found", 0));
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

    fn begin(&mut self, step: &Step) {
        match &step.op {
            Op::Pay { .. } => {
                let payment = PaymentView {
                    state: "PROCESSING".to_owned(),
                    captured: 0,
                    refunded: 0,
                    refunding: 0,
                    pending: false,
                };
                self.payments.insert(step.key.clone(), payment);
            }
            Op::Capture { of, .. } | Op::Cancel { of } => self.payment(of).pending = true,
            Op::Refund { of, amount } => self.payment(of).refunding += amount,
            Op::Expire | Op::EndLeases | Op::Restart => {}
        }
    }

    fn end(&mut self, step: &Step, is_done: bool) {
        match &step.op {
            Op::Pay { amount, manual } => {
                let payment = self.payment(&step.key);
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
            Op::Expire | Op::EndLeases | Op::Restart => {}
        }
    }
}
