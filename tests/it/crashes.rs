//! Processes that die or are stopped at a step of an operation, while others continue.

mod paused;
mod sweep;
mod worker;
