//! The scenarios, one file each.

mod cleanup;
mod fresh;
mod latency;
mod layer;
mod many_keys;
mod replays;
mod storm;

pub use self::cleanup::cleanup;
pub use self::fresh::fresh;
pub use self::latency::latency;
pub use self::layer::{CONNECTIONS as LAYER_CONNECTIONS, layer};
pub use self::many_keys::many_keys;
pub use self::replays::replays;
pub use self::storm::storm;
