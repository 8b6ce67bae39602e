//! The caller of a task, which waits for its result.
//!
//! Work runs in a task of its own that outlives its caller: once something was sent, it is carried through. What was not
//! sent yet asks first whether its caller still waits.

use std::future::Future;
use std::sync::{Arc, Weak};

tokio::task_local! {
    static CALLER: Caller;
}

/// Held by the caller for as long as it waits.
pub(super) struct Presence(Arc<()>);

/// The caller, as the task sees it.
#[derive(Clone)]
pub(super) struct Caller(Weak<()>);

impl Presence {
    pub(super) fn new() -> Self {
        Self(Arc::new(()))
    }

    /// The future, so that it knows of this caller.
    pub(super) fn of<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CALLER.scope(Caller(Arc::downgrade(&self.0)), future)
    }
}

impl Caller {
    /// The caller of the current task, where it has one.
    pub(super) fn current() -> Option<Self> {
        CALLER.try_with(Self::clone).ok()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}
