//! The service and its commands; see [`payonce::cli`].

use std::process::ExitCode;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = payonce::idempotency::failpoints::FailScenario::setup();
    match runtime() {
        Ok(runtime) => runtime.block_on(payonce::cli::run()),
        Err(error) => {
            eprintln!("payonce: the threads of the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The runtime of the engine. actix-web has a thread for each processor besides, which reads requests and writes answers. With as
/// many here, most of a thread's time goes into waking another: half of them do the same work in four fifths of the processor time.
fn runtime() -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    // Tokio's own setting, for those who measured what is best on their machine.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = available_parallelism().map_or(1, std::num::NonZero::get);
        builder.worker_threads((processors / 2).max(1));
    }
    builder.enable_all().build()
}
