//! Whether a charge takes the money at once.

/// Whether a charge takes the money at once, or holds it until a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
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
        self.into_str()
    }

    /// Finds a capture method by its name, in upper case.
    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for (method, name) in [
            (CaptureMethod::Automatic, "AUTOMATIC"),
            (CaptureMethod::Manual, "MANUAL"),
        ] {
            assert_eq!(method.as_str(), name);
            assert_eq!(CaptureMethod::from_name(name), Some(method));
        }
        assert_eq!(CaptureMethod::default(), CaptureMethod::Automatic);
    }

    #[test]
    fn other_texts_are_no_name() {
        for name in ["", "manual", "Manual", "MANUAL ", "LATER"] {
            assert_eq!(CaptureMethod::from_name(name), None, "{name}");
        }
    }
}
