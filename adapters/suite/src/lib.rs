//! The tests that each of payonce's adapters passes: one small service with the same routes in each framework, over real sockets.
//!
//! An adapter's `tests/suite.rs` implements [`Framework`] and names it to [`suite!`](crate::suite). The same program, started anew by a
//! test, is a node as a process of its own: see [`Process`].

#![allow(clippy::expect_used, reason = "it is all tests")]

mod app;
mod client;
mod process;
mod shop;
pub mod tests;

pub use self::app::{
    App, Framework, Gates, Presence, Running, insert_by_savepoint, insert_order, said,
};
pub use self::client::{Call, Reply};
pub use self::process::{Process, serve};
pub use self::shop::{Shop, node};

/// Declares the tests for a framework.
#[macro_export]
macro_rules! suite {
    ($framework:ty) => {
        $crate::suite! {
            $framework:
            answers::a_replay_is_the_first_answer_byte_for_byte,
            answers::a_failure_is_stored_and_its_writes_are_undone,
            answers::what_may_be_otherwise_next_time_stores_nothing,
            answers::a_redirect_is_kept,
            answers::a_panic_stores_nothing,
            answers::a_stream_is_stored_whole_or_not_at_all,
            answers::only_kept_headers_are_stored_and_sent,
            answers::a_header_that_cannot_be_sent_again_stores_nothing,
            keys::a_missing_or_bad_key_is_refused,
            keys::a_key_that_is_optional_may_be_missing,
            keys::a_request_without_an_owner_is_refused_and_two_owners_never_meet,
            keys::another_request_under_the_key_is_told_what_changed,
            keys::the_first_one_at_work_is_told,
            keys::a_key_is_remembered_as_long_as_its_route_says,
            keys::fifty_at_once_on_two_nodes_make_one_order,
            keys::a_service_has_its_own_form_of_refusals,
            requests::safe_methods_pass_through,
            requests::extractors_before_and_after_work,
            requests::ten_mebibytes_are_signed_and_handled,
            requests::a_body_beyond_the_bound_is_refused,
            requests::a_signed_header_is_a_part_of_the_request,
            transactions::a_failed_query_that_nobody_minds_commits_nothing,
            transactions::a_transaction_that_outlives_its_handler_commits_nothing,
            transactions::a_handler_without_a_layer_has_no_transaction,
            transactions::there_is_one_transaction,
            transactions::a_layer_in_a_layer_does_not_start,
            transactions::a_layer_in_a_layer_that_cannot_be_seen_is_refused,
            transactions::a_second_connection_that_waits_for_our_row_is_ended,
            transactions::a_savepoint_is_the_handlers_own,
            crashes::a_process_that_dies_at_a_step_leaves_all_or_nothing,
            ends::a_client_that_hangs_up_stops_nothing,
            ends::a_stop_waits_for_the_handler_whose_client_is_gone,
            ends::a_client_that_hangs_up_before_its_body_ends_stores_nothing,
        }

        /// A node, for tests that need a process: see `payonce_suite::Process`.
        #[test]
        #[ignore = "a program that other tests start"]
        fn node() {
            $crate::serve::<$framework>();
        }
    };
    ($framework:ty: $($module:ident::$test:ident),* $(,)?) => {
        $(
            #[sqlx::test(migrator = "payonce_engine::MIGRATOR")]
            async fn $test(
                _: sqlx::postgres::PgPoolOptions,
                database: sqlx::postgres::PgConnectOptions,
            ) {
                $crate::tests::$module::$test::<$framework>(database).await;
            }
        )*
    };
}
