//! All gateways that this process is set up with.

use std::sync::Arc;

use super::Gateway;

/// The gateways of this process: one for new payments, and those that older payments began with.
///
/// A payment goes on at the gateway that it began with, whatever the one for new payments is now.
#[derive(Clone)]
pub struct Gateways {
    default: Arc<dyn Gateway>,
    others: Vec<Arc<dyn Gateway>>,
}

impl Gateways {
    /// New payments are made at `default`.
    pub fn new(default: Arc<dyn Gateway>) -> Self {
        Self {
            default,
            others: Vec::new(),
        }
    }

    /// Adds a gateway for payments that began with it. One of a kind that is there already changes nothing.
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

    /// The gateway of a kind, as [`Gateway::kind`] has it; `None` where it is not set up here.
    pub fn of(&self, kind: &str) -> Option<&Arc<dyn Gateway>> {
        self.all().find(|gateway| gateway.kind() == kind)
    }

    /// All of them, the one for new payments first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Gateway>> {
        std::iter::once(&self.default).chain(&self.others)
    }

    /// Their kinds.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.all().map(|gateway| gateway.kind()).collect()
    }
}

impl From<Arc<dyn Gateway>> for Gateways {
    fn from(default: Arc<dyn Gateway>) -> Self {
        Self::new(default)
    }
}
