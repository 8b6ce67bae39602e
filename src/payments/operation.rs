//! The operations that take an idempotency key.

use strum::VariantArray;

/// An operation that takes an idempotency key.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Operation {
    /// `POST /v1/payments`
    CreatePayment,
    /// `POST /v1/payments/{id}/capture`
    CapturePayment,
    /// `POST /v1/payments/{id}/cancel`
    CancelPayment,
    /// `POST /v1/payments/{id}/refunds`
    RefundPayment,
}

impl Operation {
    /// All operations.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name in the key's scope.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    /// Finds an operation by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_in_the_database() {
        let names: Vec<&str> = Operation::ALL.iter().map(|one| one.as_str()).collect();
        assert_eq!(
            names,
            [
                "create_payment",
                "capture_payment",
                "cancel_payment",
                "refund_payment"
            ]
        );
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.as_str()), Some(*operation));
        }
    }
}
