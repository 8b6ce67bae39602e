//! The clients' answers, by key: once an answer is final, every other answer to that key must be the same.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::support::service::{Answer, Request};

use super::storm::Nodes;

/// Number of keys that are requested at once when all are checked.
const AT_ONCE: usize = 8;

/// A key, and its final answer.
struct Final {
    request: Request,
    answer: Answer,
}

#[derive(Default)]
pub struct Told {
    finals: Mutex<BTreeMap<String, Final>>,
    /// Requests sent, including repeats.
    sent: AtomicUsize,
    /// Requests that their clients did not repeat.
    given_up: AtomicUsize,
    /// Answers with an unknown outcome of a commit or a call.
    unknown: AtomicUsize,
    longest_wait: Mutex<Duration>,
}

impl Told {
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer after which the client retries.
    pub fn not_final(&self, answer: &Answer) {
        if answer.status == 202 || answer.text("code") == "outcome-unknown" {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of keys with a final answer, and of answers with an unknown outcome.
    pub fn counts(&self) -> (usize, usize) {
        let finals = self.finals.lock().expect("the answers").len();
        (finals, self.unknown.load(Ordering::Relaxed))
    }

    /// Records a final answer. Panics if the key had another one before.
    pub fn note(&self, key: &str, request: &Request, answer: &Answer, waited: Duration) {
        let mut finals = self.finals.lock().expect("the answers");
        match finals.get(key) {
            Some(before) => assert_same(key, &before.answer, answer),
            None => {
                let (request, answer) = (request.clone(), answer.clone());
                finals.insert(key.to_owned(), Final { request, answer });
            }
        }
        drop(finals);
        let mut longest = self.longest_wait.lock().expect("the longest wait");
        *longest = waited.max(*longest);
    }

    /// The ids in successful answers.
    pub fn made(&self) -> Vec<String> {
        let finals = self.finals.lock().expect("the answers");
        finals
            .values()
            .filter(|known| known.answer.status == 201)
            .map(|known| known.answer.text("id"))
            .collect()
    }

    /// Sends every key's request to both nodes again.
    pub async fn every_key_still_answers_the_same(&self, nodes: &Nodes) {
        let finals = std::mem::take(&mut *self.finals.lock().expect("the answers"));
        let asked = finals.iter().flat_map(|one| [(one, 0), (one, 1)]);
        let asking = asked.map(async |((key, known), node)| {
            let again = known.request.clone().at(&nodes.url(node)).send().await;
            assert!(again.replayed(), "{key}: {again:?}");
            assert_same(key, &known.answer, &again);
        });
        stream::iter(asking)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
        *self.finals.lock().expect("the answers") = finals;
    }

    pub fn summary(&self) -> String {
        let finals = self.finals.lock().expect("the answers");
        let mut by_status: BTreeMap<u16, usize> = BTreeMap::new();
        for known in finals.values() {
            *by_status.entry(known.answer.status.as_u16()).or_default() += 1;
        }
        format!(
            "{} keys by final status {by_status:?}, {} requests sent, {} clients never came back, the longest wait for a \
             final answer {:?}",
            finals.len(),
            self.sent.load(Ordering::Relaxed),
            self.given_up.load(Ordering::Relaxed),
            self.longest_wait.lock().expect("the longest wait"),
        )
    }
}

fn assert_same(key: &str, one: &Answer, other: &Answer) {
    assert_eq!(
        (
            one.status,
            String::from_utf8_lossy(&one.bytes),
            one.header("location")
        ),
        (
            other.status,
            String::from_utf8_lossy(&other.bytes),
            other.header("location")
        ),
        "{key}: one answer a key"
    );
}
