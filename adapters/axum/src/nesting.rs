//! Whether one layer is put around another.
//!
//! A service has lost its type when axum gives it to a layer. It can be cloned, and its clone is made of clones of all that is in it: a
//! service of ours that is cloned meanwhile says that it is there.

use std::cell::Cell;

thread_local! {
    /// Whether a service of ours was cloned on this thread since somebody began to look for one.
    static CLONED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a layer of ours is inside of this service.
pub(crate) fn has_layer<S: Clone>(service: &S) -> bool {
    CLONED.set(false);
    drop(service.clone());
    CLONED.get()
}

/// Said by a service of ours when it is cloned.
pub(crate) fn cloned() {
    CLONED.set(true);
}
