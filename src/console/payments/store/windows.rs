//! Windows of ids: how a list reads rows of many merchants, newest first.
//!
//! Primary keys begin with the merchant, so no index has the rows of many merchants in the order of their ids. An id contains the
//! time of its creation, so a span of time is a range of ids: a window. A statement examines all rows of one window, at most
//! [`AT_ONCE`]. If a window has more rows, nothing of it is used, and a shorter one is tried. Windows grow while they have few rows,
//! so that a handful of statements reaches back over years without payments.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::super::super::store::Merchants;

/// Maximum number of rows that one statement examines.
pub(super) const AT_ONCE: i64 = 5_000;

/// Maximum number of statements for one page. They suffice to find a second with payments in years without any.
const STATEMENTS: u32 = 48;

/// Maximum factor by which the next window is longer.
const MOST_GROWTH: u128 = 64;

/// Length of the first window.
const FIRST: u128 = 1_000 * MILLISECOND;

/// How far the clock of a node that makes ids may be ahead of the database's.
const CLOCKS_APART: TimeDelta = TimeDelta::hours(1);

/// The first 48 of an id's 128 bits are its time in milliseconds. The number of ids in one of them:
const MILLISECOND: u128 = 1 << 80;

/// The range of ids that a list is about.
#[derive(Clone, Debug)]
pub(in super::super) struct Ids {
    /// The prefix of the ids' kind, without `_`.
    pub(in super::super) kind: &'static str,
    /// Only ids from this one on.
    pub(in super::super) from: String,
    /// Only ids before this one.
    pub(in super::super) before: String,
}

/// The windows of one list, newest first. Positions and lengths are those of the ids' UUIDs, as numbers.
#[derive(Debug)]
pub(super) struct Windows {
    ids: Ids,
    /// The position of `ids.from`.
    end: u128,
    /// The position of `ids.before`, where the next window begins.
    at: u128,
    /// From now on until `at`, if that is in the future: hardly any rows are there.
    ahead: u128,
    /// The length of the next window, unless one of this length has too many rows.
    length: u128,
    /// A window of this length does not have too many rows.
    fits: u128,
    /// A window of this length has too many rows.
    too_long: Option<u128>,
    /// The number of rows that a window should have.
    aim: i64,
    /// For one merchant, a statement reads this many rows of the whole range, in the index's order.
    of_one: Option<i64>,
    statements: u32,
    is_done: bool,
}

/// The bounds of one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: String,
    pub(super) before: String,
    /// Number of rows to read. For many merchants, the last of them only shows that there are too many.
    pub(super) limit: i64,
}

/// What a statement examined.
#[derive(Clone, Debug, Default)]
pub(super) struct Examined {
    pub(super) rows: i64,
    /// The oldest id.
    pub(super) oldest: Option<String>,
}

impl Windows {
    /// The windows of a list for which about `rows` have to be examined. `now` is the time of the query.
    pub(super) fn new(merchants: &Merchants, ids: Ids, rows: i64, now: DateTime<Utc>) -> Self {
        let of_one = merchants.one().map(|_| rows.min(AT_ONCE));
        let latest = position_at(now + CLOCKS_APART);
        let at = position_of(ids.kind, &ids.before).min(latest);
        let ahead = at.saturating_sub(position_at(now));
        Self {
            end: position_of(ids.kind, &ids.from),
            at,
            ahead,
            length: of_one.map_or(ahead.saturating_add(FIRST), |_| u128::MAX),
            fits: 0,
            too_long: None,
            aim: rows.saturating_mul(4).min(AT_ONCE * 3 / 4),
            of_one,
            statements: 0,
            is_done: false,
            ids,
        }
    }

    /// Begins with the whole range, for a list that probably has few rows.
    pub(super) fn whole_first(self) -> Self {
        Self {
            length: u128::MAX,
            ..self
        }
    }

    /// The next window, unless all were read, or as many as one page may.
    pub(super) fn next(&mut self) -> Option<Window> {
        if self.is_done || self.statements >= STATEMENTS {
            return None;
        }
        self.statements += 1;
        let length = self.next_length();
        Some(Window {
            from: match self.reaches_the_end(length) {
                true => self.ids.from.clone(),
                false => id_at(self.ids.kind, self.at - length),
            },
            before: self.ids.before.clone(),
            limit: self.of_one.unwrap_or(AT_ONCE + 1),
        })
    }

    /// Whether the statement read all of the window. If not, its rows are not the newest, and a shorter window follows.
    pub(super) fn was_read(&mut self, examined: &Examined) -> bool {
        let length = self.next_length();
        // What lies between two adjacent UUIDs cannot be divided.
        if self.of_one.is_none() && examined.rows > AT_ONCE && length > 1 {
            self.too_long = Some(length);
            self.length = match self.length {
                u128::MAX => self.ahead.saturating_add(FIRST),
                length => length,
            };
            return false;
        }
        self.fits = length;
        true
    }

    /// Goes on behind the window that was read.
    pub(super) fn go_on(&mut self, examined: &Examined) {
        let read = std::mem::take(&mut self.fits);
        let was_full = self.of_one.is_some_and(|limit| examined.rows >= limit);
        if let (true, Some(oldest)) = (was_full, &examined.oldest) {
            self.at = position_of(self.ids.kind, oldest);
            self.ids.before.clone_from(oldest);
            return;
        }
        if self.reaches_the_end(read) {
            self.is_done = true;
            return;
        }
        self.at -= read;
        self.ids.before = id_at(self.ids.kind, self.at);
        // The density of enough rows says more than the length that had too many.
        let too_long = self.too_long.filter(|_| examined.rows < self.aim / 4);
        self.too_long = too_long
            .and_then(|too_long| too_long.checked_sub(read))
            .filter(|rest| *rest > 1);
        self.length = self.grown(read, examined.rows);
        self.ahead = self.ahead.saturating_sub(read);
    }

    /// Whether the window that was read has much fewer rows than wanted, and there is a longer one with the same beginning. It is
    /// the next one.
    pub(super) fn widen(&mut self, examined: &Examined) -> bool {
        let read = self.fits;
        let are_enough = examined.rows >= self.aim * 2 / 3;
        if self.of_one.is_some() || self.reaches_the_end(read) || are_enough {
            return false;
        }
        self.length = self.ahead.saturating_add(self.grown(read, examined.rows));
        self.next_length() > read
    }

    /// Where the list goes on: only ids before this one. Returns `None` if there are no more.
    pub(super) fn rest(self) -> Option<String> {
        (!self.is_done).then_some(self.ids.before)
    }

    fn next_length(&self) -> u128 {
        let wanted = match self.too_long {
            Some(too_long) => self.length.min(self.fits.midpoint(too_long)),
            None => self.length,
        };
        wanted.clamp(1, self.at.saturating_sub(self.end).max(1))
    }

    fn reaches_the_end(&self, length: u128) -> bool {
        self.at.saturating_sub(length) <= self.end
    }

    /// The length of a window with the wanted number of rows if they are as dense as in the one of length `read`.
    fn grown(&self, read: u128, rows: i64) -> u128 {
        let (rows, aim) = (rows.max(1).unsigned_abs(), self.aim.unsigned_abs());
        let past = read.checked_sub(self.ahead).filter(|past| *past > 0);
        let length = past.unwrap_or(read);
        let wanted = (length / u128::from(rows)).saturating_mul(u128::from(aim));
        wanted.min(length.saturating_mul(MOST_GROWTH))
    }
}

fn id_at(kind: &str, position: u128) -> String {
    format!("{kind}_{}", Uuid::from_u128(position))
}

/// The first position of that time.
fn position_at(moment: DateTime<Utc>) -> u128 {
    let milliseconds = moment.timestamp_millis().clamp(0, (1 << 48) - 1);
    u128::from(milliseconds.unsigned_abs()) * MILLISECOND
}

/// The last position whose id is not after `bound`, which can be any text.
fn position_of(kind: &str, bound: &str) -> u128 {
    let (mut first, mut last) = (0, u128::MAX);
    while first < last {
        let middle = last - (last - first) / 2;
        match id_at(kind, middle).as_str() <= bound {
            true => first = middle,
            false => last = middle - 1,
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u128 = 1_000 * MILLISECOND;
    const YEAR: u128 = 31_536_000 * SECOND;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn of_two() -> Merchants {
        Merchants::Many(vec!["acme".to_owned(), "other".to_owned()])
    }

    /// The ids of rows that are so old, newest first.
    fn rows(ages: impl Iterator<Item = u128>) -> Vec<String> {
        rows_from(0, ages)
    }

    /// The same by a clock that is so many seconds ahead.
    fn rows_from(seconds: u128, ages: impl Iterator<Item = u128>) -> Vec<String> {
        let newest = position_at(now()) + seconds * SECOND;
        let mut ids: Vec<String> = ages.map(|age| id_at("pay", newest - age)).collect();
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids
    }

    /// What a statement does.
    fn look<'a>(rows: &'a [String], window: &Window) -> (Examined, &'a [String]) {
        let newer = rows.partition_point(|id| *id >= window.before);
        let inside = rows.partition_point(|id| *id >= window.from);
        let limit = usize::try_from(window.limit).expect("a limit");
        let read = &rows[newer..inside.max(newer).min(newer + limit)];
        let examined = Examined {
            rows: i64::try_from(read.len()).expect("few"),
            oldest: read.last().cloned(),
        };
        (examined, read)
    }

    fn all_ids() -> Ids {
        Ids {
            kind: "pay",
            from: "pay_".to_owned(),
            before: "pay_~".to_owned(),
        }
    }

    /// Reads at least `wanted` rows. Returns the rows, the number of statements, and where the list goes on.
    fn walk(
        rows: &[String],
        mut windows: Windows,
        wanted: usize,
    ) -> (Vec<String>, u32, Option<String>) {
        let mut found = Vec::new();
        while found.len() < wanted
            && let Some(window) = windows.next()
        {
            let (examined, read) = look(rows, &window);
            if windows.was_read(&examined) {
                found.extend_from_slice(read);
                windows.go_on(&examined);
            }
        }
        (found, windows.statements, windows.rest())
    }

    #[test]
    fn a_page_takes_few_statements_wherever_its_rows_are() {
        let quiet = rows((0..30).map(|n| 2 * YEAR + n * SECOND));
        let steady = rows((0..100_000).map(|n| n * SECOND / 3_000));
        let hourly = rows((0..10_000).map(|n| n * 3_600 * SECOND));
        let burst = rows((0..100_000).map(|n| 9 * 3_600 * SECOND + n * SECOND / 1_000));
        let ahead = rows_from(60, (0..100_000).map(|n| n * SECOND / 3_000));
        for (name, rows, most) in [
            ("quiet", &quiet, 6),
            ("steady", &steady, 1),
            ("hourly", &hourly, 5),
            ("burst", &burst, 20),
            ("clocks apart", &ahead, 16),
        ] {
            let windows = Windows::new(&of_two(), all_ids(), 26, now());
            let (found, statements, rest) = walk(rows, windows, 26);
            assert!(found.len() >= 26, "{name}: {}", found.len());
            assert_eq!(found, rows[..found.len()], "{name}");
            assert!(statements <= most, "{name}: {statements} statements");
            assert!(rest.is_some_and(|rest| rest <= found[25]), "{name}");
        }
        let windows = Windows::new(&of_two(), all_ids(), 26, now());
        let (found, statements, rest) = walk(&[], windows, 26);
        assert_eq!((found.len(), rest), (0, None));
        assert!(statements <= 7, "{statements} statements");
    }

    #[test]
    fn each_row_is_read_once_over_bursts_and_gaps() {
        let bursts = (0..8_u32).flat_map(|burst| {
            let start = YEAR * u128::from(burst) + 77 * SECOND;
            // The one after another: 12,000 rows in a second, in a minute, in an hour.
            let span = SECOND * 60_u128.pow(burst % 3);
            (0..12_000).map(move |n| start + span / 12_000 * n)
        });
        let rows = rows(bursts);
        let (mut before, mut found) = ("pay_~".to_owned(), Vec::new());
        for page in 0.. {
            assert!(page < 200, "it never ends");
            let ids = Ids {
                before,
                ..all_ids()
            };
            let windows = Windows::new(&of_two(), ids, AT_ONCE, now());
            let (read, statements, rest) = walk(&rows, windows, 2_000);
            found.extend(read);
            assert!(statements <= STATEMENTS);
            let Some(rest) = rest else { break };
            before = rest;
        }
        assert_eq!(found.len(), rows.len());
        assert!(found == rows, "newest first");
    }

    #[test]
    fn one_merchants_rows_are_read_in_order() {
        let rows = rows((0..12).map(|n| n * YEAR));
        let acme = Merchants::One("acme".to_owned());
        let windows = Windows::new(&acme, all_ids(), 5, now());
        let (found, statements, rest) = walk(&rows, windows, 100);
        assert_eq!((found, statements, rest), (rows, 3, None));
    }

    #[test]
    fn a_list_of_few_rows_begins_with_the_whole_range() {
        let few = rows((0..20).map(|n| n * YEAR));
        let windows = Windows::new(&of_two(), all_ids(), 26, now()).whole_first();
        assert_eq!(walk(&few, windows, 26), (few, 1, None));
        let many = rows((0..100_000).map(|n| n * 60 * SECOND));
        let windows = Windows::new(&of_two(), all_ids(), 26, now()).whole_first();
        let (found, statements, _) = walk(&many, windows, 26);
        assert_eq!(found, many[..found.len()]);
        assert!(
            found.len() >= 26 && statements <= 4,
            "{statements} statements"
        );
    }

    #[test]
    fn a_window_widens_to_about_as_many_rows_as_a_statement_examines() {
        for each in [SECOND / 3_000, SECOND / 10, SECOND, 7 * SECOND] {
            let rows = rows((0..100_000).map(|n| n * each));
            let ids = all_ids();
            let mut windows = Windows::new(&of_two(), ids, AT_ONCE, now());
            let mut best = Examined::default();
            while let Some(window) = windows.next() {
                let (examined, _) = look(&rows, &window);
                if windows.was_read(&examined) {
                    let widens = windows.widen(&examined);
                    best = examined;
                    if !widens {
                        break;
                    }
                }
            }
            assert!(best.rows >= AT_ONCE / 2, "{} rows", best.rows);
            assert!(windows.statements <= 8, "{} statements", windows.statements);
            windows.go_on(&best);
            let seen = usize::try_from(best.rows).expect("few");
            let rest = windows.rest().expect("there are more");
            assert!(
                rows[seen] < rest && rest <= rows[seen - 1],
                "it goes on behind them"
            );
        }
    }

    #[test]
    fn any_text_has_a_position_among_the_ids() {
        let id = "pay_019a0000-1234-7abc-8def-0123456789ab";
        let position = position_of("pay", id);
        assert_eq!(id_at("pay", position), id);
        assert_eq!(position_of("pay", &format!("{id}~")), position);
        for (bound, position) in [
            ("", 0),
            ("pay_", 0),
            ("pay_0", 0),
            ("pay_~", u128::MAX),
            ("zebra", u128::MAX),
        ] {
            assert_eq!(position_of("pay", bound), position, "{bound}");
        }
        let moment = now();
        let first = super::super::super::times::first_id_at("pay", moment);
        assert!(id_at("pay", position_at(moment)) >= first);
        assert!(id_at("pay", position_at(moment) - 1) < first);
    }
}
