//! Processes that die, or stand still, at a step of an operation, while others go on.

mod paused;
mod sweep;
mod worker;
