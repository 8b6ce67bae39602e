//! Rules of the source tree: which module may import which, how long a file may be, and that documents name what exists.

mod circles;
mod documents;
mod imports;
mod lengths;
mod metrics;
mod order;
mod packages;
mod rooms;
mod source;
