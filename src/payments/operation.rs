//! The operations that take an idempotency key.

/// An operation that takes an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub const ALL: &'static [Self] = &[
        Self::CreatePayment,
        Self::CapturePayment,
        Self::CancelPayment,
        Self::RefundPayment,
    ];

    /// The name in the key's scope.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreatePayment => "create_payment",
            Self::CapturePayment => "capture_payment",
            Self::CancelPayment => "cancel_payment",
            Self::RefundPayment => "refund_payment",
        }
    }

    /// Finds an operation by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|operation| operation.as_str() == name)
    }
}
