//! Searches of the list of intents, which continue where they stopped.
//!
//! The list of a busy account may be longer than one attempt can read. So the next attempt of this process continues after the last
//! page that was read. A restarted process begins again.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};
use moka::sync::Cache;

use super::intent::ListedIntent;
use super::page::Page;
use super::text;
use crate::gateway::{Charge, GatewayError};

/// Maximum number of cached searches, each of a few hundred bytes.
const MAX_KEPT: u64 = 10_000;

/// A search that was not continued for this long is dropped, because its payment was settled elsewhere.
const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

/// The question that a search answers. The pages of one question are not used for another, because a call may have been carried out
/// in between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// Whether a call under this key was carried out. It may still be.
    Call(String),
    /// Whether a call under this key was carried out, if the key's only answer is a stored failure: its execution has ended.
    EndedCall(String),
    /// Whether any call of the claim was carried out. One may still be under way.
    Claim,
    /// Whether any call of a claim was carried out, if the claim is so old that none can be under way.
    OldClaim,
}

impl Question {
    /// Returns true if "nothing was done" stays true.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::EndedCall(_) | Self::OldClaim)
    }
}

/// A window of creation times in Unix seconds, both ends included. Its end is `None` if it has none.
pub(super) type Window = (i64, Option<i64>);

/// The progress of a search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The windows still to be read, the next one first.
    windows: VecDeque<Window>,
    /// The last intent that was read of the first window.
    after: Option<String>,
    pages: u32,
    /// The payment's intents so far.
    ids: Vec<String>,
}

impl Search {
    pub(super) fn new(windows: impl Into<VecDeque<Window>>) -> Self {
        Self {
            windows: windows.into(),
            after: None,
            pages: 0,
            ids: Vec::new(),
        }
    }

    /// Returns what to read next: a window, and the intent in it after which to continue. Returns `None` if everything is read.
    pub(super) fn next(&self) -> Option<(Window, Option<&str>)> {
        let window = self.windows.front()?;
        Some((*window, self.after.as_deref()))
    }

    /// True before the first window, after the last, and between two.
    pub(super) fn is_between_windows(&self) -> bool {
        self.after.is_none()
    }

    pub(super) fn ids(&self) -> &[String] {
        &self.ids
    }

    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    /// Adds the page that [`Self::next`] named.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Unknown`] if the id of one of the payment's intents is not valid.
    pub(super) fn note(
        &mut self,
        page: Page<ListedIntent>,
        payment_id: &str,
    ) -> Result<(), GatewayError> {
        let last = page.data.last().map(|last| last.id.clone());
        for intent in page.data.into_iter().filter(|i| i.is_of(payment_id)) {
            if !text::is_id(&intent.id, "pi_") {
                return Err(GatewayError::Unknown {
                    reason: "Stripe lists an intent with an invalid id".to_owned(),
                });
            }
            self.ids.push(intent.id);
        }
        self.pages += 1;
        self.after = last.filter(|_| page.has_more);
        if self.after.is_none() {
            self.windows.pop_front();
        }
        Ok(())
    }
}

/// The key of a search: whose intents it looks for, and which question it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    account: Option<String>,
    payment_id: String,
    claimed_at: DateTime<Utc>,
    question: Question,
}

impl Name {
    pub(super) fn new(charge: &Charge, question: Question) -> Self {
        Self {
            account: charge.account.clone(),
            payment_id: charge.payment_id.clone(),
            claimed_at: charge.claimed_at,
            question,
        }
    }
}

/// The searches of this process.
pub(super) struct Searches(Cache<Name, Search>);

impl Searches {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_KEPT)
            .time_to_idle(FORGET_AFTER)
            .build();
        Self(cache)
    }

    /// Returns the search with its progress, or a new one.
    pub(super) fn begun_or(&self, name: &Name, windows: impl FnOnce() -> Vec<Window>) -> Search {
        self.0.get(name).unwrap_or_else(|| Search::new(windows()))
    }

    pub(super) fn keep(&self, name: &Name, search: &Search) {
        self.0.insert(name.clone(), search.clone());
    }

    /// Keeps a search that has ended if its result stays true: it found intents, or its "nothing" is final.
    pub(super) fn end(&self, name: &Name, search: &Search) {
        if search.ids.is_empty() && !name.question.is_final() {
            self.0.invalidate(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(ids: &[&str], has_more: bool) -> Page<ListedIntent> {
        let data: Vec<_> = ids
            .iter()
            .map(|id| json!({"id": id, "metadata": {"payment_id": id.replace("pi_", "pay_")}}))
            .collect();
        serde_json::from_value(json!({"data": data, "has_more": has_more})).expect("a page")
    }

    #[test]
    fn each_page_is_progress_and_each_window_is_read_to_its_end() {
        let (first, second) = ((10, Some(20)), (0, Some(9)));
        let mut search = Search::new([first, second]);
        assert_eq!(search.next(), Some((first, None)));
        search
            .note(page(&["pi_5", "pi_4"], true), "pay_4")
            .expect("a page");
        assert_eq!(search.next(), Some((first, Some("pi_4"))));
        assert!(!search.is_between_windows());
        search
            .note(page(&["pi_3"], false), "pay_4")
            .expect("a page");
        assert_eq!(search.next(), Some((second, None)));
        assert!(search.is_between_windows());
        search.note(page(&[], false), "pay_4").expect("a page");
        assert_eq!((search.next(), search.pages()), (None, 3));
        assert_eq!(search.ids(), ["pi_4"]);
    }

    #[test]
    fn only_a_nothing_that_stays_true_is_kept() {
        let usd = crate::money::Currency::from_code("USD").expect("USD");
        let charge = Charge {
            payment_id: "pay_1".to_owned(),
            merchant_id: "acme".to_owned(),
            account: None,
            amount: crate::money::Amount::from_minor(100, usd),
            token: crate::gateway::GatewayToken::new("pm_1"),
            capture_method: crate::gateway::CaptureMethod::Automatic,
            gateway_customer_id: None,
            off_session: false,
            description: None,
            claimed_at: chrono::Utc::now(),
        };
        let rows = [
            (Question::Call("pay_1".to_owned()), false),
            (Question::EndedCall("pay_1".to_owned()), true),
            (Question::Claim, false),
            (Question::OldClaim, true),
        ];
        let searches = Searches::new();
        for (question, is_kept) in rows {
            let name = Name::new(&charge, question);
            let new = searches.begun_or(&name, || vec![(0, None)]);
            assert!(new.next().is_some(), "{name:?} has another's answer");
            for (ids, is_kept) in [(&[][..], is_kept), (&["pi_1"], true)] {
                let mut search = Search::new([(0, None)]);
                search.note(page(ids, false), "pay_1").expect("a page");
                searches.keep(&name, &search);
                searches.end(&name, &search);
                let again = searches.begun_or(&name, || vec![(0, None)]);
                assert_eq!(again.next().is_none(), is_kept, "{name:?} {ids:?}");
            }
        }
    }
}
