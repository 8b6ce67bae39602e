//! The gateways that this process is set up with.

use std::sync::Arc;

use super::Gateway;

/// The gateways of this process: one for new payments, and those of older payments.
///
/// A payment stays at the gateway that charged it, even if another one is used for new payments now.
#[derive(Clone)]
pub struct Gateways {
    default: Arc<dyn Gateway>,
    others: Vec<Arc<dyn Gateway>>,
}

impl Gateways {
    /// `default` is the gateway for new payments.
    pub fn new(default: Arc<dyn Gateway>) -> Self {
        Self {
            default,
            others: Vec::new(),
        }
    }

    /// Adds the gateway of older payments. Has no effect if there is already one of its kind.
    #[must_use]
    pub fn with(mut self, other: Arc<dyn Gateway>) -> Self {
        if self.of(other.kind()).is_none() {
            self.others.push(other);
        }
        self
    }

    /// The gateway for new payments.
    pub fn default_gateway(&self) -> &Arc<dyn Gateway> {
        &self.default
    }

    /// The gateway of a kind, as in [`Gateway::kind`]. Returns `None` if it is not set up in this process.
    pub fn of(&self, kind: &str) -> Option<&Arc<dyn Gateway>> {
        self.all().find(|gateway| gateway.kind() == kind)
    }

    /// All gateways, the one for new payments first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Gateway>> {
        std::iter::once(&self.default).chain(&self.others)
    }

    /// The kinds of all gateways.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.all().map(|gateway| gateway.kind()).collect()
    }
}

impl From<Arc<dyn Gateway>> for Gateways {
    fn from(default: Arc<dyn Gateway>) -> Self {
        Self::new(default)
    }
}
