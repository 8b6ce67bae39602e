//! The tables that have rows of merchants, and what a move does with them. A test compares this list with the catalog.

/// A table with rows of merchants.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its rows go to the other cell.
    pub is_copied: bool,
    /// Writes of a merchant that is moving are refused.
    pub is_fenced: bool,
}

const fn table(name: &'static str, is_copied: bool, is_fenced: bool) -> Table {
    Table {
        name,
        is_copied,
        is_fenced,
    }
}

/// In the order in which they are copied: what a foreign key refers to comes first.
pub const TABLES: [Table; 7] = [
    // Its row is made when the merchant begins to arrive, because the fence there goes by it.
    table("merchants", false, true),
    table("api_keys", true, true),
    table("payments", true, true),
    table("refunds", true, true),
    table("idempotency_keys", true, true),
    // Empty before the merchant's rows are copied. Each claim inserts here, so new claims are refused here.
    table("unsettled_keys", false, true),
    // Notes for the console, written for several merchants at once: a refused one would take the others' with it. What is noted here
    // after the copy was made stays here, where it happened.
    table("refused_reuses", true, false),
];

/// The tables that a move leaves alone: the rows of two belong to no merchant, and `operator_actions` is the audit of what operators did in
/// this cell. It is not fenced, so a copy would not be all of it, and nothing ever deletes from it.
pub const OF_EACH_CELL: [&str; 3] = ["fingerprint_secrets", "traffic_minutes", "operator_actions"];

/// The tables whose writes are refused, in the order in which payments lock them: a key is settled before its payment. Whoever takes
/// locks in this order never waits for a payment that waits for it.
pub(super) const IN_LOCK_ORDER: [&str; 6] = [
    "idempotency_keys",
    "unsettled_keys",
    "payments",
    "refunds",
    "merchants",
    "api_keys",
];

/// Where a claim is made.
pub(super) const CLAIMS: &str = "unsettled_keys";

/// The columns of `merchants` that a move writes itself: each cell has its own.
pub(super) const OF_THE_MOVE: [&str; 4] = ["move_state", "move_cell", "move_id", "move_since"];

/// The tables whose rows are copied.
pub(super) fn copied() -> impl DoubleEndedIterator<Item = &'static str> {
    let copied = TABLES.iter().filter(|table| table.is_copied);
    copied.map(|table| table.name)
}

/// The tables whose writes are refused once the merchant's rows are copied. Claims are refused before that.
pub(super) fn fenced() -> impl Iterator<Item = &'static str> {
    let fenced = TABLES.iter().filter(|table| table.is_fenced);
    fenced
        .map(|table| table.name)
        .filter(|name| *name != CLAIMS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_fenced_table_has_its_place_in_the_order_of_locks() {
        let ordered: BTreeSet<_> = IN_LOCK_ORDER.into();
        let of_claims = [CLAIMS].into_iter();
        assert_eq!(ordered, fenced().chain(of_claims).collect());
    }
}
