//! Whether a charge takes the money at once.

use std::fmt;
use std::str::FromStr;

/// Whether a charge takes the money at once, or holds it until a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMethod {
    /// The charge takes it at once.
    #[default]
    Automatic,
    /// A later capture takes it.
    Manual,
}

impl CaptureMethod {
    /// The name in requests, payments and the database: `AUTOMATIC` or `MANUAL`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "AUTOMATIC",
            Self::Manual => "MANUAL",
        }
    }

    /// Finds a capture method by its name, in upper case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Automatic, Self::Manual]
            .into_iter()
            .find(|method| method.as_str() == name)
    }
}

impl fmt::Display for CaptureMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a text that is not a capture method's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no capture method has this name")]
pub struct UnknownCaptureMethod;

impl FromStr for CaptureMethod {
    type Err = UnknownCaptureMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::from_name(name).ok_or(UnknownCaptureMethod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for method in [CaptureMethod::Automatic, CaptureMethod::Manual] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert_eq!(CaptureMethod::default().as_str(), "AUTOMATIC");
    }

    #[test]
    fn other_texts_are_no_name() {
        for name in ["", "manual", "Manual", "MANUAL ", "LATER"] {
            assert_eq!(CaptureMethod::from_name(name), None, "{name}");
            assert_eq!(
                name.parse::<CaptureMethod>(),
                Err(UnknownCaptureMethod),
                "{name}"
            );
        }
    }
}
