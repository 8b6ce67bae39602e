//! The scenarios, one file each.

mod cleanup;
mod cleanup_beside;
mod expired;
mod fresh;
mod latency;
mod layer;
mod many_keys;
mod replays;
mod slow_commits;
mod storm;
mod subject;

pub use self::cleanup::cleanup;
pub use self::cleanup_beside::cleanup_beside;
pub use self::fresh::{Others, fresh};
pub use self::latency::latency;
pub use self::layer::layer;
pub use self::many_keys::many_keys;
pub use self::replays::replays;
pub use self::slow_commits::{slow_disk, standby};
pub use self::storm::storm;
