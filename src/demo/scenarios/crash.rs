//! The server is killed after its answer, and another process gets the retry.

use super::{check_one_payment, check_same_answer};
use crate::demo::report::Scene;
use crate::demo::server::Server;
use crate::demo::stage::{GOOD_CARD, Stage, card_payment};

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene.story("All that the first process had in memory is gone. The database knows.");
    let mut shop = stage.merchant(server, "crash").await?;
    let (key, body) = ("order-1004", card_payment("120.00", GOOD_CARD));

    let first = shop.pay(key, &body).await?;
    scene.step("first request", &first);
    let first_process = server.process_id();
    let status = server.kill().await?;
    scene.fact(
        "SIGKILL",
        format_args!("process {}: {status}", id(first_process)),
    );
    let to_nobody = shop.pay(key, &body).await;
    scene.fact(
        "retry, meanwhile",
        if to_nobody.is_ok() {
            "answered"
        } else {
            "nobody answers"
        },
    );
    server.start_again().await?;
    shop.follow(server);
    scene.fact(
        "started again",
        format_args!("process {}", id(server.process_id())),
    );
    let retry = shop.pay(key, &body).await?;
    scene.step("retry", &retry);
    let payment_id = first.text("/id");
    scene.fact("payment", &payment_id);

    scene.equal("status of the first", first.status, 201);
    scene.check("the process was killed", killed(status), || {
        format!("it ended by {status}")
    });
    scene.check("nobody answered meanwhile", to_nobody.is_err(), || {
        "somebody did".to_owned()
    });
    scene.check(
        "another process answers",
        server.process_id() != first_process,
        || format!("process {}", id(first_process)),
    );
    scene.equal(
        "the retry's Idempotent-Replayed",
        retry.replayed.as_deref().unwrap_or("-"),
        "true",
    );
    check_same_answer(scene, "before and after", &[&first, &retry]);
    check_one_payment(scene, &shop, key, &payment_id).await
}

fn killed(status: std::process::ExitStatus) -> bool {
    const SIGKILL: i32 = 9;
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL)
}

fn id(process: Option<u32>) -> String {
    process.map_or_else(|| "-".to_owned(), |id| id.to_string())
}
