//! The cell that a program belongs to.

use clap::Args;

use crate::merchants::Cell;

/// The cell, where there are several.
#[derive(Clone, Copy, Debug, Args)]
pub struct CellArgs {
    /// Number of this cell, 1 to 9999, where there are several databases with their nodes (docs/SCALING.md): new API keys name it, as
    /// sk_2_…. Without it they name none.
    #[arg(long, env = "PAYONCE_CELL", value_name = "NUMBER")]
    pub cell: Option<Cell>,
}
