//! Form-encoded parameters, read as strictly as Stripe reads them: what it would refuse must not pass here.

use std::collections::BTreeMap;

use super::reply::ApiError;

/// Stripe's largest amount: eight digits.
const MAX_AMOUNT_MINOR: i64 = 99_999_999;
const MAX_METADATA_ENTRIES: usize = 50;
const MAX_METADATA_NAME_CHARS: usize = 40;
const MAX_METADATA_VALUE_CHARS: usize = 500;

/// Names and values, sorted, so that two requests with the same parameters are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(encoded: &str) -> Self {
        let mut pairs: Vec<_> = form_urlencoded::parse(encoded.as_bytes())
            .into_owned()
            .collect();
        pairs.sort();
        Self(pairs)
    }

    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        match self.get(name) {
            Some("") | None => {
                let error = ApiError::invalid(format!("Missing required param: {name}."));
                Err(error.code("parameter_missing").param(name))
            }
            Some(value) => Ok(value),
        }
    }

    pub(super) fn one_of<'a>(
        &'a self,
        name: &str,
        allowed: &[&str],
    ) -> Result<Option<&'a str>, ApiError> {
        match self.get(name) {
            Some(value) if !allowed.contains(&value) => {
                let allowed = allowed.join(", ");
                Err(
                    ApiError::invalid(format!("Invalid {name}: must be one of {allowed}"))
                        .param(name),
                )
            }
            value => Ok(value),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.one_of(name, &["true", "false"])? == Some("true"))
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => {
                let error = ApiError::invalid(format!("Invalid integer: {text}"));
                Err(error.code("parameter_invalid_integer").param(name))
            }
        }
    }

    /// An amount in minor units, at least 1.
    pub(super) fn amount(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.integer(name)? {
            Some(amount) if amount < 1 => {
                let error = ApiError::invalid("This value must be greater than or equal to 1.");
                Err(error.code("parameter_invalid_integer").param(name))
            }
            Some(amount) if amount > MAX_AMOUNT_MINOR => {
                let error =
                    ApiError::invalid(format!("Amount must be no more than {MAX_AMOUNT_MINOR}."));
                Err(error.code("amount_too_large").param(name))
            }
            amount => Ok(amount),
        }
    }

    /// How many entries of a list: 1 to 100, by default 10.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let limit = self.integer("limit")?.unwrap_or(10);
        match usize::try_from(limit) {
            Ok(limit @ 1..=100) => Ok(limit),
            _ => Err(ApiError::invalid("Invalid limit: must be between 1 and 100").param("limit")),
        }
    }

    pub(super) fn metadata(&self) -> Result<BTreeMap<String, String>, ApiError> {
        let invalid = |message: &str| Err(ApiError::invalid(message).param("metadata"));
        let entries: BTreeMap<_, _> = self
            .0
            .iter()
            .filter_map(|(name, value)| {
                let name = name.strip_prefix("metadata[")?.strip_suffix(']')?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect();
        if entries.len() > MAX_METADATA_ENTRIES {
            return invalid("Metadata can have at most 50 keys");
        }
        if entries
            .keys()
            .any(|name| name.chars().count() > MAX_METADATA_NAME_CHARS || name.contains(['[', ']']))
        {
            return invalid("Metadata keys have at most 40 characters and no square brackets");
        }
        if entries
            .values()
            .any(|value| value.chars().count() > MAX_METADATA_VALUE_CHARS)
        {
            return invalid("Metadata values have at most 500 characters");
        }
        Ok(entries)
    }

    /// The values of `expand[]`, or `expand[0]` and so on. In a list's `data.…` the prefix makes no difference here.
    pub(super) fn expand(&self) -> Result<Vec<String>, ApiError> {
        let fields = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with("expand["));
        fields
            .map(
                |(_, value)| match value.strip_prefix("data.").unwrap_or(value) {
                    field @ ("latest_charge" | "payment_method") => Ok(field.to_owned()),
                    _ => Err(ApiError::invalid(format!(
                        "This property cannot be expanded ({value})."
                    ))
                    .param("expand")),
                },
            )
            .collect()
    }
}
