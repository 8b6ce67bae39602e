//! The fields of the search for payments, and what they mean.

use serde::Deserialize;

use super::super::links::href_of_given;
use super::store::{END_OF_IDS, Filter, Ids, RefundsQuery};
use super::times::{Typed, first_id_at};
use crate::money::{Amount, Currency, MajorAmount};

const PAYMENT: &str = "pay";
const REFUND: &str = "ref";

/// The search's fields as they were sent. A field that was not filled in is empty.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct SearchQuery {
    pub(super) id: String,
    pub(super) merchant: String,
    pub(super) key: String,
    pub(super) state: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) amount: String,
    pub(super) currency: String,
    pub(super) customer: String,
    pub(super) last4: String,
    pub(super) decline: String,
    /// The end of the previous page: only payments before this one.
    pub(super) before: String,
}

/// The kinds of id that an operator can type.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Id<'a> {
    /// A payment's id, or its beginning.
    Payment(&'a str),
    /// A refund's id, or its beginning.
    Refund(&'a str),
    /// The gateway's id of a payment or a refund, or its beginning.
    AtGateway(&'a str),
}

impl<'a> Id<'a> {
    fn of(text: &'a str) -> Self {
        match text.split_once('_') {
            Some((PAYMENT, _)) => Self::Payment(text),
            Some((REFUND, _)) => Self::Refund(text),
            _ => Self::AtGateway(text),
        }
    }
}

/// Why there is no search: sentences for the operator.
type Complaint = &'static str;

impl SearchQuery {
    /// Removes spaces around copied values, and replaces NUL, which no PostgreSQL text contains.
    pub(super) fn cleaned(self) -> Self {
        let clean = |text: String| text.trim().replace('\0', "\u{fffd}");
        Self {
            id: clean(self.id),
            merchant: clean(self.merchant),
            key: clean(self.key),
            state: clean(self.state),
            from: clean(self.from),
            to: clean(self.to),
            amount: clean(self.amount),
            currency: clean(self.currency).to_uppercase(),
            customer: clean(self.customer),
            last4: clean(self.last4),
            decline: clean(self.decline),
            before: clean(self.before),
        }
    }

    /// The same search from there on.
    pub(super) fn going_on(&self, next: &str) -> String {
        let all = [
            ("id", self.id.as_str()),
            ("merchant", &self.merchant),
            ("key", &self.key),
            ("state", &self.state),
            ("from", &self.from),
            ("to", &self.to),
            ("amount", &self.amount),
            ("currency", &self.currency),
            ("customer", &self.customer),
            ("last4", &self.last4),
            ("decline", &self.decline),
            ("before", next),
        ];
        href_of_given("/console/payments", &all)
    }

    /// Whether fields are filled in that do not identify a payment.
    pub(super) fn has_details(&self) -> bool {
        let details = [
            &self.from,
            &self.to,
            &self.amount,
            &self.currency,
            &self.customer,
            &self.last4,
            &self.decline,
        ];
        details.into_iter().any(|text| !text.is_empty())
    }

    pub(super) fn merchant(&self) -> Option<&str> {
        given(&self.merchant)
    }

    pub(super) fn key(&self) -> Option<&str> {
        given(&self.key)
    }

    pub(super) fn id(&self) -> Option<Id<'_>> {
        given(&self.id).map(Id::of)
    }

    /// Translates the query for the database.
    pub(super) fn filter(&self) -> Result<Filter, Complaint> {
        let mut ids = self.bounds(PAYMENT)?;
        if let Some(before_that) = given(&self.before) {
            ids.before = ids.before.min(before_that.to_owned());
        }
        let mut transaction = None;
        match self.id() {
            Some(Id::Payment(beginning)) => narrow(&mut ids, beginning),
            Some(Id::AtGateway(beginning)) => transaction = Some(beginning.to_owned()),
            Some(Id::Refund(_)) | None => {}
        }
        let amounts = match given(&self.amount) {
            Some(amount) => Some(amounts(amount, given(&self.currency))?),
            None => None,
        };
        let has_email = self.customer.contains('@');
        let customer = given(&self.customer).map(str::to_owned);
        let (customer_email, customer_id) = match has_email {
            true => (customer, None),
            false => (None, customer),
        };
        Ok(Filter {
            merchant_id: self.merchant().map(str::to_owned),
            ids,
            named: None,
            state: given(&self.state).map(str::to_owned),
            amounts,
            currency: given(&self.currency).map(str::to_owned),
            customer_id,
            customer_email,
            last4: given(&self.last4).map(str::to_owned),
            transaction,
            decline_code: given(&self.decline).map(str::to_owned),
        })
    }

    /// The refunds to look for, if the id may be a refund's.
    pub(super) fn refunds(&self) -> Result<Option<RefundsQuery>, Complaint> {
        let mut ids = self.bounds(REFUND)?;
        let at_gateway = match self.id() {
            Some(Id::Refund(beginning)) => {
                narrow(&mut ids, beginning);
                None
            }
            Some(Id::AtGateway(beginning)) => Some(beginning.to_owned()),
            Some(Id::Payment(_)) | None => return Ok(None),
        };
        Ok(Some(RefundsQuery { ids, at_gateway }))
    }

    /// The range of the ids of a kind that were made in the requested time.
    fn bounds(&self, kind: &'static str) -> Result<Ids, Complaint> {
        let moment = |text: &str| {
            let typed = given(text).map(|text| Typed::parse(text).ok_or(NO_TIME));
            typed.transpose()
        };
        let (from, to) = (moment(&self.from)?, moment(&self.to)?);
        let from = from.map_or_else(|| format!("{kind}_"), |from| first_id_at(kind, from.from));
        let before = to.map_or_else(
            || format!("{kind}_{END_OF_IDS}"),
            |to| first_id_at(kind, to.until),
        );
        Ok(Ids { kind, from, before })
    }
}

const NO_TIME: Complaint = "A time is written as 2026-11-26, 2026-11-26 11:15 or 2026-11-26T11:15:33Z; it is UTC unless it \
     says otherwise.";
const NO_AMOUNT: Complaint =
    "An amount is written as 1234.50, with at most as many decimals as the currency has.";
const NO_CURRENCY: Complaint = "A currency is a code of ISO 4217, such as USD.";

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Narrows a range to the ids with this prefix.
fn narrow(ids: &mut Ids, beginning: &str) {
    if beginning > ids.from.as_str() {
        beginning.clone_into(&mut ids.from);
    }
    let end = format!("{beginning}{END_OF_IDS}");
    if end < ids.before {
        ids.before = end;
    }
}

/// An amount in minor units, in the given currency or in every currency in which the amount can be written: `5.00` is 500 cents of
/// a dollar and 5,000 fils of a dinar.
fn amounts(text: &str, currency: Option<&str>) -> Result<(Vec<i64>, Vec<String>), Complaint> {
    // In the console's format: with commas or spaces between the groups.
    let digits: String = text
        .chars()
        .filter(|character| *character != ',' && !character.is_whitespace())
        .collect();
    let amount = MajorAmount::parse(&digits).map_err(|_| NO_AMOUNT)?;
    if let Some(code) = currency {
        let currency = Currency::from_code(code).ok_or(NO_CURRENCY)?;
        let amount = amount.to_amount(currency).map_err(|_| NO_AMOUNT)?;
        return Ok((vec![amount.minor()], vec![code.to_owned()]));
    }
    let all = (0..=999)
        .filter_map(iso_currency::Currency::from_numeric)
        .filter_map(|iso| Currency::from_code(iso.code()));
    let possible: Vec<Amount> = all.filter_map(|one| amount.to_amount(one).ok()).collect();
    if possible.is_empty() {
        return Err(NO_AMOUNT);
    }
    let pairs = possible.iter();
    Ok(pairs
        .map(|one| (one.minor(), one.currency().code().to_owned()))
        .unzip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_one_in_each_currency_that_has_it() {
        assert_eq!(
            amounts("1,234.50", Some("USD")),
            Ok((vec![123_450], vec!["USD".to_owned()]))
        );
        let (minors, currencies) = amounts("5.00", None).expect("amounts");
        let of = |code: &str| {
            let at = currencies.iter().position(|currency| currency == code)?;
            Some(minors[at])
        };
        assert_eq!(
            (of("USD"), of("KWD"), of("JPY")),
            (Some(500), Some(5000), None)
        );
        let (_, currencies) = amounts("100", None).expect("amounts");
        assert!(currencies.contains(&"JPY".to_owned()));
        for (text, currency, complaint) in [
            ("ten", None, NO_AMOUNT),
            ("-1", None, NO_AMOUNT),
            ("1.123456", None, NO_AMOUNT),
            ("1.5", Some("JPY"), NO_AMOUNT),
            ("1.5", Some("dollars"), NO_CURRENCY),
        ] {
            assert_eq!(amounts(text, currency), Err(complaint), "{text}");
        }
    }

    #[test]
    fn time_id_and_page_narrow_the_same_bounds() {
        let query = SearchQuery {
            id: "pay_0000000a".to_owned(),
            from: "1970-01-01".to_owned(),
            before: "pay_0000000a-5".to_owned(),
            ..SearchQuery::default()
        };
        let filter = query.filter().expect("a filter");
        assert_eq!(
            (filter.ids.from.as_str(), filter.ids.before.as_str()),
            ("pay_0000000a", "pay_0000000a-5")
        );
        let wrong = SearchQuery {
            to: "yesterday".to_owned(),
            ..SearchQuery::default()
        };
        assert_eq!(wrong.filter().err(), Some(NO_TIME));
    }

    #[test]
    fn an_id_says_whose_it_is() {
        assert_eq!(Id::of("pay_01"), Id::Payment("pay_01"));
        assert_eq!(Id::of("ref_01"), Id::Refund("ref_01"));
        for text in ["pi_3Abc", "re_3Abc", "sim_1", "01a2"] {
            assert_eq!(Id::of(text), Id::AtGateway(text));
        }
    }
}
