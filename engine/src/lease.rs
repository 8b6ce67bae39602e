//! A lease says how long this engine may act on a claim without asking the database again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::Moment;

/// Whether a claim may still act: the result of [`super::Engine::fence`].
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::Fence;
///
/// /// Whether to make the call: the other system forgets its idempotency keys after a day.
/// fn may_call(fence: Fence) -> bool {
///     match fence {
///         Fence::Held { age: Some(age) } => age < Duration::from_secs(20 * 60 * 60),
///         Fence::Held { age: None } | Fence::Lost => false,
///     }
/// }
/// assert!(may_call(Fence::Held { age: Some(Duration::ZERO) }));
/// assert!(!may_call(Fence::Lost));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fence {
    /// The claim is held.
    Held {
        /// The key's present age. Time in which the process or the machine was suspended counts. `None` if it is not known: see
        /// [`Claim::age`](super::Claim::age).
        age: Option<Duration>,
    },
    /// The claim was taken over, settled or released. Nothing may be done for it any more.
    Lost,
}

/// An engine's record of one of its claims.
#[derive(Debug)]
pub(super) struct Lease {
    /// The attempt that holds the claim.
    pub(super) attempt: i32,
    /// When the claim was asked for. It is no younger than this.
    taken: Moment,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// When the statement was sent that last renewed the lease.
    Confirmed(Moment),
    Lost,
}

impl Lease {
    /// The lease of a claim that was taken by a statement sent at `taken`.
    pub(super) fn new(attempt: i32, taken: Moment) -> Arc<Self> {
        Arc::new(Self {
            attempt,
            taken,
            state: Mutex::new(State::Confirmed(taken)),
        })
    }

    /// The time since the claim was asked for.
    pub(super) fn held_for(&self) -> Duration {
        self.taken.elapsed()
    }

    /// Notes that a statement sent at `sent` renewed the lease.
    pub(super) fn confirm(&self, sent: Moment) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Lost) {
            *state = State::Confirmed(sent);
        }
    }

    /// Notes that another process has taken the claim over.
    pub(super) fn lose(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Lost;
    }

    /// The time since the lease was last confirmed. `None` if the claim is lost.
    pub(super) fn unconfirmed_for(&self) -> Option<Duration> {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Confirmed(sent) => Some(sent.elapsed()),
            State::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_lease_is_never_confirmed_again() {
        let lease = Lease::new(1, Moment::now());
        assert!(lease.unconfirmed_for().is_some());
        lease.lose();
        lease.confirm(Moment::now());
        assert_eq!(lease.unconfirmed_for(), None);
    }
}
