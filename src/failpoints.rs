//! Steps at which a test makes the process die or stand still, named by the environment's `FAILPOINTS`:
//! `settle-committed=return` aborts it there, `1*call-answered=return(stop)` stops it there, the first time, as SIGSTOP
//! does, until somebody sends SIGCONT.

use nix::sys::signal::{Signal, raise};

/// This step is reached.
pub(crate) fn reach(step: &str) {
    match fail::eval(step, |how| how) {
        Some(Some(how)) if how == "stop" => {
            if raise(Signal::SIGSTOP).is_err() {
                std::process::abort();
            }
        }
        Some(_) => std::process::abort(),
        None => {}
    }
}
