//! Stripe's idempotency rules, version 1. See <https://docs.stripe.com/api/idempotent_requests>.

use std::collections::{HashMap, HashSet};

use super::form::Params;
use super::reply::{ApiError, Reply};

/// Stripe's bound on a key.
const MAX_KEY_CHARS: usize = 255;

/// `pay_` or `ref_`, and a UUID.
const ID_CHARS: usize = 40;

/// What is known under each key.
///
/// A key is taken when execution begins and never released: an error of execution, a 402 or a 500, is its answer like a success. A
/// request that ends before, by a failed validation or by throttling, leaves no trace.
#[derive(Default)]
pub(super) struct Keys(HashMap<String, Entry>);

struct Entry {
    path: String,
    params: Params,
    /// `None` while the first request is at work.
    answer: Option<Reply>,
}

impl Keys {
    /// The answer to a request whose key is known. Returns `None` if it must be executed.
    ///
    /// Other parameters are refused even while the first request is in progress, since waiting would not help.
    pub(super) fn lookup(&self, key: &str, path: &str, params: &Params) -> Option<Reply> {
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
            return Some(
                ApiError::invalid("Idempotency-Key must have 1 to 255 characters.").into(),
            );
        }
        let entry = self.0.get(key)?;
        if entry.path != path {
            let message = format!(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for ('{path}' vs \
                 '{}'). Try using a key other than '{key}' if you meant to execute a different request.",
                entry.path
            );
            return Some(ApiError::key_reused(message).into());
        }
        if entry.params != *params {
            let message = format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. Try \
                 using a key other than '{key}' if you meant to execute a different request."
            );
            return Some(ApiError::key_reused(message).into());
        }
        Some(match &entry.answer {
            Some(answer) => answer.clone().with("Idempotent-Replayed", "true"),
            None => ApiError::key_in_use(key).into(),
        })
    }

    /// Execution begins.
    pub(super) fn begin(&mut self, key: &str, path: &str, params: &Params) {
        let entry = Entry {
            path: path.into(),
            params: params.clone(),
            answer: None,
        };
        let previous = self.0.insert(key.into(), entry);
        assert!(
            previous.is_none(),
            "the key {key} was looked up and found absent under the same lock"
        );
    }

    /// Execution has ended with this answer.
    pub(super) fn finish(&mut self, key: &str, answer: Reply) {
        let entry = self
            .0
            .get_mut(key)
            .expect("a key in use is never forgotten");
        entry.answer = Some(answer);
    }

    /// Forgets the finished keys that begin with an id: those that are named after it.
    pub(super) fn forget_those_of(&mut self, ids: &HashSet<String>) {
        let is_of_one = |key: &str| key.get(..ID_CHARS).is_some_and(|id| ids.contains(id));
        self.0
            .retain(|key, entry| entry.answer.is_none() || !is_of_one(key));
    }

    pub(super) fn forget(&mut self) {
        self.0.retain(|_, entry| entry.answer.is_none());
    }
}
