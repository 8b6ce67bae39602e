//! Stopping a server without losing the work of a handler whose client is gone.

use std::time::Duration;

use actix_web::dev::ServerHandle;
use payonce_engine::Engine;

/// How long handlers at work may take to end. Connections that stay open go on sending requests meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Stops a server gracefully: no connection is accepted from now on, what is at work ends, for 30 s at most, and then the server stops as
/// by `handle.stop(true)`.
///
/// A handler's future runs on its worker's thread and ends with it, and actix-web waits for connections, not for a handler whose
/// client has hung up. Call this in place of `ServerHandle::stop`, with the server's own signals disabled. A handler that is
/// stopped all the same leaves nothing: its transaction is rolled back, and its key is still good.
///
/// ```no_run
/// # async fn run(engine: payonce_actix::payonce_engine::Engine) -> std::io::Result<()> {
/// use actix_web::{App, HttpServer};
///
/// let server = HttpServer::new(App::new).disable_signals().bind("127.0.0.1:8080")?.run();
/// let handle = server.handle();
/// // And SIGTERM, as in the README.
/// tokio::spawn(async move {
///     drop(tokio::signal::ctrl_c().await);
///     payonce_actix::stop(&handle, &engine).await;
/// });
/// server.await
/// # }
/// ```
pub async fn stop(handle: &ServerHandle, engine: &Engine) {
    handle.pause().await;
    drop(actix_web::rt::time::timeout(LONGEST_WAIT, engine.finish()).await);
    handle.stop(true).await;
}
