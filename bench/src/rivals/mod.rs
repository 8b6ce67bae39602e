//! The variants that payonce is compared with. Each is a process of its own, like payonce.

mod bare;
mod layered;
mod reference;
mod two_phase;

pub use self::bare::{Answer, BareArgs, serve_bare};
pub use self::layered::{Handler, LayeredArgs, SCHEMA as LAYERED_SCHEMA, serve_layered};
pub use self::reference::{ReferenceArgs, serve_reference};
pub use self::two_phase::serve_two_phase;

use std::net::TcpListener;

/// The commits that a per-request handler needs for a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phases {
    /// No gateway is called.
    One,
    /// The gateway is called between the two.
    Two,
}

/// The tables of the reference handler and of pgbench.
pub const SCHEMA: &str = include_str!("schema.sql");

/// pgbench's script. `ANSWER` stands for the stored body, in hexadecimal digits.
pub const CLAIM_AND_SETTLE: &str = include_str!("claim_and_settle.sql");

/// Listens on a port that the system picks, and prints it on standard error in payonce's format.
fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let line = serde_json::json!({ "address": listener.local_addr()?.to_string() });
    eprintln!("{line}");
    Ok(listener)
}
