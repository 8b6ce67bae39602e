//! The steps of a history, and the choice of the next one.

use rand::RngExt;
use rand::rngs::StdRng;

use super::gateway::Turn;
use super::spec::{HeldStands, Model, PaymentView};

/// A request. Amounts are in whole units. A payment is identified by the key that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Pay { amount: i64, manual: bool },
    Capture { of: String, amount: i64 },
    Cancel { of: String },
    Refund { of: String, amount: i64 },
}

impl Op {
    /// The payment that it is on.
    pub fn of(&self) -> Option<&str> {
        match self {
            Self::Pay { .. } => None,
            Self::Capture { of, .. } | Self::Cancel { of } | Self::Refund { of, .. } => Some(of),
        }
    }
}

/// An operation, under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub key: String,
    pub op: Op,
}

/// One step. `turn` is the gateway's answer to calls in the step.
#[derive(Clone, Debug)]
pub enum Step {
    Send {
        request: Request,
        node: usize,
        turn: Turn,
    },
    /// The call of the request, if it makes one, is held at the gateway.
    Hold {
        request: Request,
        node: usize,
    },
    /// A node's call at the gateway is answered.
    Open {
        node: usize,
        turn: Turn,
    },
    /// The request reaches both nodes at once: the database lets none of them write before both wait.
    Race {
        request: Request,
        turn: Turn,
    },
    /// A node takes over all that is abandoned.
    Recover {
        node: usize,
        turn: Turn,
    },
    /// All final keys expire.
    Expire,
    /// Keys under way expire, too.
    ExpireAll,
    CleanUp {
        node: usize,
    },
    /// All leases end.
    EndLeases,
    /// The node restarts with an empty memory.
    Restart {
        node: usize,
    },
}

const TURNS: [Turn; 12] = [
    Turn::Answer,
    Turn::Answer,
    Turn::Answer,
    Turn::Decline,
    Turn::Refuse,
    Turn::Refuse,
    Turn::Misconfigured,
    Turn::Nothing,
    Turn::Nothing,
    Turn::Unknown,
    Turn::Unknown,
    Turn::Unknown,
];

/// The answer with which a gate is opened.
const LATE_TURNS: [Turn; 7] = [
    Turn::Answer,
    Turn::Answer,
    Turn::Decline,
    Turn::Refuse,
    Turn::Misconfigured,
    Turn::Nothing,
    Turn::Unknown,
];

fn one_of<T: Clone>(rng: &mut StdRng, all: &[T]) -> T {
    all[rng.random_range(0..all.len())].clone()
}

/// Chooses the next step. Usually it is about work under way or an existing payment.
pub fn next_step(rng: &mut StdRng, model: &Model) -> Step {
    let turn = one_of(rng, &TURNS);
    let node = rng.random_range(0..2);
    let holders: Vec<usize> = (0..2).filter(|node| model.held(*node).is_some()).collect();
    if !holders.is_empty() && rng.random_bool(0.7) {
        let holder = one_of(rng, &holders);
        let held = model.held(holder).expect("it is held").clone();
        return about_held(rng, model, held, holder, turn);
    }
    let unfinished = model.unfinished();
    if !unfinished.is_empty() && rng.random_bool(0.5) {
        let request = one_of(rng, &unfinished);
        return about_unfinished(rng, model, request, node, turn);
    }
    let request = match rng.random_bool(0.25) && !model.sent().is_empty() {
        true => one_of(rng, model.sent()),
        false => new_request(rng, model),
    };
    // Steps that open a connection are rare, because they take longest.
    match rng.random_range(0..60) {
        0..3 => Step::Expire,
        3..5 => Step::CleanUp { node },
        5 => Step::Restart { node },
        6..12 => Step::Race { request, turn },
        12..28 => Step::Hold {
            request: new_request(rng, model),
            node,
        },
        _ => Step::Send {
            request,
            node,
            turn,
        },
    }
}

/// A step for a call that is held at the gateway: usually one that leads to a late answer.
fn about_held(
    rng: &mut StdRng,
    model: &Model,
    request: Request,
    holder: usize,
    turn: Turn,
) -> Step {
    let other = 1 - holder;
    let stands = model.held_stands(holder).expect("it is held");
    let open = Step::Open {
        node: holder,
        turn: one_of(rng, &LATE_TURNS),
    };
    if rng.random_bool(0.5) {
        let node = other;
        return match stands {
            HeldStands::Ours {
                lease_is_over: false,
            } => Step::EndLeases,
            HeldStands::Ours {
                lease_is_over: true,
            } => {
                let turn = one_of(rng, &[Turn::Refuse, Turn::Refuse, Turn::Unknown, turn]);
                Step::Send {
                    request,
                    node,
                    turn,
                }
            }
            HeldStands::GivenBack => {
                let turn = one_of(rng, &[Turn::Unknown, turn]);
                let request = match rng.random_bool(0.3) {
                    true => changed(rng, model, &request),
                    false => request,
                };
                Step::Send {
                    request,
                    node,
                    turn,
                }
            }
            HeldStands::TakenOver | HeldStands::Replaced => open,
        };
    }
    match rng.random_range(0..10) {
        0 => Step::EndLeases,
        1..3 => Step::Send {
            request,
            node: other,
            turn,
        },
        3 => Step::Send {
            request,
            node: holder,
            turn,
        },
        4 => Step::Send {
            request: changed(rng, model, &request),
            node: rng.random_range(0..2),
            turn,
        },
        5 => Step::Recover { node: other, turn },
        6 => Step::Hold {
            request,
            node: other,
        },
        7 => Step::Race { request, turn },
        8 => Step::ExpireAll,
        _ => open,
    }
}

/// A step for a claim with an unknown outcome.
fn about_unfinished(
    rng: &mut StdRng,
    model: &Model,
    request: Request,
    node: usize,
    turn: Turn,
) -> Step {
    match rng.random_range(0..20) {
        0..6 if !model.leases_are_over() => Step::EndLeases,
        0..10 => Step::Send {
            request,
            node,
            turn,
        },
        10..14 => Step::Race { request, turn },
        14 => Step::Send {
            request: changed(rng, model, &request),
            node,
            turn,
        },
        15 => Step::Recover { node, turn },
        16 => Step::ExpireAll,
        17 if rng.random_bool(0.3) => Step::CleanUp { node },
        _ => Step::Hold { request, node },
    }
}

/// A different request under the same key.
fn changed(rng: &mut StdRng, model: &Model, request: &Request) -> Request {
    for _ in 0..20 {
        let other = new_request(rng, model);
        if std::mem::discriminant(&other.op) == std::mem::discriminant(&request.op) {
            let key = request.key.clone();
            return Request { key, ..other };
        }
    }
    request.clone()
}

fn new_request(rng: &mut StdRng, model: &Model) -> Request {
    let amount = one_of(rng, &[4, 6, 10, 11]);
    let kind = rng.random_range(0..16);
    let (prefix, op) = if model.views().is_empty() || kind < 5 {
        let manual = rng.random_bool(0.5);
        ("p", Op::Pay { amount: 10, manual })
    } else if kind < 11 {
        let of = payment_in(rng, model, &["AUTHORIZED"]);
        match kind < 9 {
            true => ("c", Op::Capture { of, amount }),
            false => ("x", Op::Cancel { of }),
        }
    } else {
        let of = payment_in(rng, model, &["SUCCESS", "PARTIALLY_REFUNDED"]);
        ("r", Op::Refund { of, amount })
    };
    let key = format!("{prefix}{}", rng.random_range(0..9));
    Request { key, op }
}

/// A payment, mostly one in these states.
fn payment_in(rng: &mut StdRng, model: &Model, states: &[&str]) -> String {
    let is_in = |(_, payment): &&(String, PaymentView)| states.contains(&payment.state.as_str());
    let all = model.views();
    let fitting: Vec<_> = all.iter().filter(is_in).cloned().collect();
    let (key, _) = match fitting.is_empty() || rng.random_bool(0.3) {
        true => one_of(rng, &all),
        false => one_of(rng, &fitting),
    };
    key
}
