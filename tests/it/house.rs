//! Rules of the source tree: which module may import which, how long a file may be, that documents name what exists, and that public
//! items have examples.

mod circles;
mod documents;
mod examples;
mod imports;
mod lengths;
mod metrics;
mod order;
mod packages;
mod rooms;
mod source;
