//! Whether clients may send card numbers.

use clap::ValueEnum;

/// Whether clients may send card numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CardIntake {
    /// Accepted. A card is exchanged for the gateway's token before anything is stored.
    #[default]
    On,
    /// Refused. Clients send the gateway's tokens only (PCI DSS SAQ A).
    Off,
}
