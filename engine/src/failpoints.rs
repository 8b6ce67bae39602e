//! Steps at which a test aborts or stops the process. The environment variable `FAILPOINTS` names them: `settle-committed=return`
//! aborts it there, `1*call-answered=return(stop)` stops it there, the first time, as SIGSTOP does, until it is sent SIGCONT.

pub use fail::FailScenario;
use nix::sys::signal::{Signal, raise};

/// This step is reached.
pub fn reach(step: &str) {
    let Some(how) = fail::eval(step, |how| how) else {
        return;
    };
    let stood_still = how.is_some_and(|how| how == "stop") && raise(Signal::SIGSTOP).is_ok();
    if !stood_still {
        std::process::abort();
    }
}
