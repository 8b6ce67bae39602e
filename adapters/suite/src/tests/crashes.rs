//! Processes that die in the middle of a request.

use std::os::unix::process::ExitStatusExt;

use sqlx::postgres::PgConnectOptions;

use crate::{Framework, Process, Shop};

/// The steps of a request, and whether its commit is done.
const STEPS: [(&str, bool); 5] = [
    ("claim-before", false),
    ("handler-began", false),
    ("handler-wrote", false),
    ("claim-before-commit", false),
    ("claim-committed", true),
];

/// How the system says that a process aborted.
const SIGABRT: i32 = 6;

/// Before the commit the retry is the first request, after it the retry finds the answer: one order either way.
pub async fn a_process_that_dies_at_a_step_leaves_all_or_nothing<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database.clone()).await;
    for (done, (step, is_committed)) in (0..).zip(STEPS) {
        let mut doomed = Process::start(&database, &format!("{step}=return")).await;
        let call = shop.order(step);
        let answer = call.clone().to(doomed.address).try_send().await;
        assert_eq!(answer, None, "{step}");
        assert_eq!(doomed.ended().await.signal(), Some(SIGABRT), "{step}");
        // PostgreSQL may still have to see that its client is gone.
        let first = call.send_until_answered().await;
        assert_eq!(
            (first.status, first.is_replay()),
            (201, is_committed),
            "{step}"
        );
        let again = call.send().await;
        assert!(again.is_replay(), "{step}");
        assert_eq!(again.lasting(), first.lasting(), "{step}");
        assert_eq!(
            (shop.orders().await, shop.keys().await),
            (done + 1, done + 1),
            "{step}"
        );
        let found = sqlx::query_scalar::<_, bool>("select true from orders where id = $1::uuid")
            .bind(first.json()["id"].as_str().expect("an id"))
            .fetch_optional(&shop.database)
            .await;
        assert_eq!(found.expect("an answer"), Some(true), "{step}");
    }
    shop.close().await;
}
