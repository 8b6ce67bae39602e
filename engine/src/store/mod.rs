//! The engine's SQL. Every function is one statement on a connection that the engine gives it.

mod abandoned;
mod columns;
mod expired;
mod keys;
mod records;
mod secrets;
mod seen;
mod stored;

pub use self::abandoned::Abandoned;
pub(crate) use self::abandoned::{count_unsettled, list_abandoned, list_on_live_nodes};
pub use self::columns::{FoundColumns, FoundKey, Inserted, KeyColumns, NewKey, ResponseColumns};
pub(crate) use self::expired::{
    ExpiredKey, Writers, count_expired, delete_expired, delete_expired_between, end_of_batch,
    list_expired, oldest_expired, release_cleanup_lock, see_writers, set_up_cleanup,
    try_cleanup_lock,
};
pub(crate) use self::keys::{
    finish_key, finish_new_key, forget_unsettled, insert_key, keep_unsettled, remove_key,
    renew_leases, renew_leases_of, replace_expired_key, take_over,
};
pub(crate) use self::records::{find_record, list_records, list_stuck_records};
pub use self::secrets::UnknownSecret;
pub(crate) use self::secrets::{list_secrets, note_secrets};
pub(crate) use self::seen::{
    SeenKey, Standing, commit_message, lock_key, see_key, wait_until_durable,
};
