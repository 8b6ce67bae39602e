//! What a history is made of.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::scripted::Turn;

use super::spec::Model;

/// One step. The key, the node and the gateway's turn are unused where it is no request.
#[derive(Clone, Debug)]
pub struct Step {
    pub op: Op,
    pub key: String,
    pub node: usize,
    /// What the gateway does if this step calls it.
    pub turn: Turn,
}

/// Amounts are in whole units. A payment is named by the key that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Pay {
        amount: i64,
        manual: bool,
    },
    Capture {
        of: String,
        amount: i64,
    },
    Cancel {
        of: String,
    },
    Refund {
        of: String,
        amount: i64,
    },
    /// All final keys that made a payment or a refund are past their time.
    Expire,
    /// The owners of all claims have been silent for their leases.
    EndLeases,
    Restart,
}

/// What comes next. It is mostly a repetition, or of a payment that is there.
pub fn next_step(rng: &mut StdRng, model: &Model) -> Step {
    let turn = match rng.random_range(0..10) {
        0 => Turn::Decline,
        1 => Turn::Nothing,
        2 | 3 => Turn::Unknown,
        4 => Turn::Misconfigured,
        _ => Turn::Answer,
    };
    let node = rng.random_range(0..2);
    let sent = model.sent();
    if !sent.is_empty() && rng.random_bool(0.25) {
        let again = sent[rng.random_range(0..sent.len())].clone();
        return Step {
            node,
            turn,
            ..again
        };
    }
    let payments = model.views();
    let of = |rng: &mut StdRng| payments[rng.random_range(0..payments.len())].0.clone();
    let amount = [4, 6, 10, 11][rng.random_range(0..4)];
    let (op, prefix) = match rng.random_range(0..24) {
        0 => (Op::Expire, ""),
        1..4 => (Op::EndLeases, ""),
        4 => (Op::Restart, ""),
        kind if payments.is_empty() || kind < 9 => {
            let manual = rng.random_bool(0.5);
            (Op::Pay { amount: 10, manual }, "p")
        }
        9..13 => (
            Op::Capture {
                of: of(rng),
                amount,
            },
            "c",
        ),
        13..15 => (Op::Cancel { of: of(rng) }, "x"),
        _ => (
            Op::Refund {
                of: of(rng),
                amount,
            },
            "r",
        ),
    };
    Step {
        op,
        key: format!("{prefix}{}", rng.random_range(0..4)),
        node,
        turn,
    }
}
