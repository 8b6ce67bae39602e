//! The caller of a task, which waits for its result.
//!
//! Work runs in its own task, which outlives the caller: whatever was sent is completed. Before anything is sent, the task checks
//! whether the caller still waits.

use std::future::Future;
use std::sync::{Arc, Weak};

tokio::task_local! {
    static CALLER: Caller;
}

/// Held by the caller for as long as it waits.
pub(super) struct Presence(Arc<()>);

/// The task's view of its caller.
#[derive(Clone)]
pub(super) struct Caller(Weak<()>);

impl Presence {
    pub(super) fn new() -> Self {
        Self(Arc::new(()))
    }

    /// Makes this caller known to the future.
    pub(super) fn of<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CALLER.scope(Caller(Arc::downgrade(&self.0)), future)
    }
}

impl Caller {
    /// Returns the caller of the current task. Returns `None` if it has none.
    pub(super) fn current() -> Option<Self> {
        CALLER.try_with(Self::clone).ok()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}
