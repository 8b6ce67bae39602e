//! Pauses between the tries of one claim, which double up to a minute.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::key::ScopedKey;

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two tries of one claim.
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::LONGEST_RECOVERY_PAUSE;
///
/// assert_eq!(LONGEST_RECOVERY_PAUSE, Duration::from_secs(60));
/// ```
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A claim that was not seen for this long has been resolved elsewhere.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

#[derive(Default)]
pub(super) struct Backoff(HashMap<ScopedKey, Tried>);

struct Tried {
    pause: Duration,
    next: Instant,
}

impl Backoff {
    pub(super) fn is_due(&self, scope: &ScopedKey, now: Instant) -> bool {
        self.0.get(scope).is_none_or(|tried| tried.next <= now)
    }

    /// Notes a failed try. Returns true for the first one, which is logged.
    pub(super) fn failed(&mut self, scope: &ScopedKey, now: Instant) -> bool {
        if let Some(tried) = self.0.get_mut(scope) {
            tried.pause = (tried.pause * 2).min(LONGEST_PAUSE);
            tried.next = now + tried.pause;
            return false;
        }
        self.0.insert(
            scope.clone(),
            Tried {
                pause: FIRST_PAUSE,
                next: now + FIRST_PAUSE,
            },
        );
        true
    }

    pub(super) fn clear(&mut self, scope: &ScopedKey) {
        self.0.remove(scope);
    }

    pub(super) fn forget_old(&mut self) {
        self.0
            .retain(|_, tried| tried.next.elapsed() < FORGET_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::IdempotencyKey;

    #[test]
    fn pauses_grow_to_a_minute_and_end_with_success() {
        let scope = ScopedKey::new(
            "acme",
            "create_payment",
            IdempotencyKey::new("k").expect("a key"),
        );
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.is_due(&scope, now));
        assert!(backoff.failed(&scope, now));
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(pause);
            assert!(
                !backoff.is_due(&scope, now + pause - Duration::from_millis(1)),
                "{pause:?}"
            );
            assert!(backoff.is_due(&scope, now + pause), "{pause:?}");
            assert!(!backoff.failed(&scope, now));
        }
        backoff.clear(&scope);
        assert!(backoff.is_due(&scope, now));
    }
}
