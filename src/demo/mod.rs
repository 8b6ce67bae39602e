//! Demonstrations of the service's guarantees, by a real server process on a real database, over HTTP.
//!
//! Each starts its own `payonce serve`, creates its own merchants, prints what it does and sees, and checks the result. Other data in
//! the database is not changed.
//!
//! * `scenarios`: the eight demonstrations, one function each.
//! * `server`, `program`: the processes and the end of their output; every wait for them is bounded.
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

/// Runs all eight on a database, prints them, and returns whether all checks passed.
///
/// Returns an error if no demonstration can run, for example because the database cannot be reached. A server that crashes or does not
/// answer is a failed demonstration.
pub async fn run(database: DatabaseArgs) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // If it is dropped, its server process is killed.
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
    // Not a loop, because the futures have different types.
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
