//! The demonstrations: what the service promises, shown by a real server process on a real database, over HTTP.
//!
//! Each of them starts a `payonce serve` of its own, makes merchants of its own, says what it does and sees, and checks
//! itself. What else is in the database stays as it is.
//!
//! * `scenarios`: the eight, one function each.
//! * `server`, `program`: the processes, and what they said last; every wait for them is bounded.
//! * `stage`, `client`: merchants, and what they send.
//! * `report`, `summary`: what is printed.

mod client;
mod program;
mod report;
mod scenarios;
mod server;
mod stage;
mod summary;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use self::report::{Page, Scene};
use self::scenarios::{at_once, crash, decline, double_click, expiry, retry, reuse, scopes};
use self::server::{Server, Terms};
use self::stage::Stage;
use self::summary::Summary;
use crate::config::DatabaseArgs;

/// Runs all eight against a database, prints them, and tells whether everything held.
///
/// An error is one that none of them can do anything about, such as a database that is gone. A server that crashes, or does
/// not answer, is a demonstration that does not hold.
pub async fn run(database: DatabaseArgs) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Dropped midway, it takes its server process with it.
    tokio::select! {
        all_hold = run_all(database) => all_hold,
        _ = terminate.recv() => bail!("stopped by SIGTERM"),
        _ = interrupt.recv() => bail!("stopped by SIGINT"),
    }
}

async fn run_all(database: DatabaseArgs) -> anyhow::Result<bool> {
    let stage = Stage::build(database).await?;
    let mut page = Page::stdout();
    let mut summary = Summary::default();
    // Not a loop over a list: each is a future of a type of its own.
    macro_rules! show {
        ($title:literal, $terms:expr, $play:path) => {
            summary.add(demonstrate(&stage, &mut page, $title, $terms, $play).await);
        };
    }
    show!("A network retry", Terms::DEFAULT, retry::play);
    show!("$50 becomes $500", Terms::DEFAULT, reuse::play);
    show!("Three at once", Terms::DEFAULT, at_once::play);
    show!("Killed and restarted", Terms::DEFAULT, crash::play);
    show!("Insufficient funds", Terms::DEFAULT, decline::play);
    show!("One key, three scopes", Terms::DEFAULT, scopes::play);
    show!(
        "$99.99 and a double click",
        Terms::DEFAULT,
        double_click::play
    );
    show!(
        "Expired keys are cleaned up",
        Terms::SHORT_LIVED,
        expiry::play
    );
    summary.print(&mut page);
    Ok(summary.all_hold())
}

async fn demonstrate(
    stage: &Stage,
    page: &mut Page,
    title: &'static str,
    terms: Terms,
    play: impl AsyncFnOnce(&Stage, &mut Server, &mut Scene<'_>) -> anyhow::Result<()>,
) -> report::Verdict {
    let mut scene = page.open(title);
    match Server::start(stage.database(), terms).await {
        Ok(mut server) => {
            if let Err(error) = play(stage, &mut server, &mut scene).await {
                scene.broke(&error);
            }
            if !scene.holds() {
                scene.quote("the server said last", &server.last_lines());
            }
            if let Err(error) = server.kill().await {
                scene.broke(&error);
            }
        }
        Err(error) => scene.broke(&error),
    }
    scene.close()
}
