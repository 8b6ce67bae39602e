//! The parameters that name one payment or one refund.

use serde::Deserialize;

use super::super::error::ConsoleError;

#[derive(Deserialize)]
pub(in super::super) struct ResourceQuery {
    merchant: String,
    id: String,
}

impl ResourceQuery {
    /// Returns the merchant and the id.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::NotFound`] if one of them contains NUL: PostgreSQL's texts cannot, so there is no such row.
    pub(super) fn checked(self) -> Result<(String, String), ConsoleError> {
        if self.merchant.contains('\0') || self.id.contains('\0') {
            return Err(ConsoleError::NotFound);
        }
        Ok((self.merchant, self.id))
    }
}
