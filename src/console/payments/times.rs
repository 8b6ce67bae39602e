//! Spans of time, as an operator types them and as ranges of ids: a UUIDv7 begins with the time of its creation.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, TimeDelta, Utc};

/// A time that an operator typed, with its precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// Its beginning.
    pub(super) from: DateTime<Utc>,
    /// Its end, exclusive: a day ends where the next day begins, and a minute where the next minute begins.
    pub(super) until: DateTime<Utc>,
}

impl Typed {
    /// Reads `2026-11-26`, `2026-11-26 11:15`, `2026-11-26 11:15:33.5`, with a `T` or a space, in UTC; or RFC 3339 with an offset,
    /// as in logs.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            let midnight = |day: NaiveDate| Some(day.and_hms_opt(0, 0, 0)?.and_utc());
            return Some(Self {
                from: midnight(day)?,
                until: midnight(day.checked_add_days(Days::new(1))?)?,
            });
        }
        let moment = match DateTime::parse_from_rfc3339(text) {
            Ok(moment) => moment.to_utc(),
            Err(_) => {
                let formats = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f"];
                let text = text.replacen('T', " ", 1);
                let read = |format| NaiveDateTime::parse_from_str(&text, format).ok();
                formats.into_iter().find_map(read)?.and_utc()
            }
        };
        let time = text
            .split_once(['T', ' ', 't'])
            .map_or("", |(_, time)| time);
        let seconds = time.split(':').nth(2);
        let precision = match seconds {
            // `11:15`. The colon of an offset, as in `11:15:33+01:00`, is after the seconds.
            None => TimeDelta::minutes(1),
            Some(seconds) if seconds.contains('.') => TimeDelta::milliseconds(1),
            Some(_) => TimeDelta::seconds(1),
        };
        Some(Self {
            from: moment,
            until: moment.checked_add_signed(precision)?,
        })
    }
}

/// The smallest id of this kind that can have been made at this time or later.
pub(super) fn first_id_at(kind: &str, moment: DateTime<Utc>) -> String {
    // A UUIDv7 has 48 bits of milliseconds since 1970.
    let milliseconds = moment.timestamp_millis().clamp(0, (1 << 48) - 1);
    let digits = format!("{milliseconds:012x}");
    let (high, low) = digits.split_at(8);
    format!("{kind}_{high}-{low}")
}

/// When an id was made. Returns `None` if the id does not contain the time.
pub(super) fn made_at(id: &str) -> Option<DateTime<Utc>> {
    let (_, uuid) = id.split_once('_')?;
    let milliseconds = format!("{}{}", uuid.get(..8)?, uuid.get(9..13)?);
    DateTime::from_timestamp_millis(i64::from_str_radix(&milliseconds, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_as_long_as_it_is_exact() {
        for (text, from, until) in [
            ("2026-11-26", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z"),
            (
                "2026-11-26 11:15",
                "2026-11-26T11:15:00Z",
                "2026-11-26T11:16:00Z",
            ),
            (
                "2026-11-26T11:15",
                "2026-11-26T11:15:00Z",
                "2026-11-26T11:16:00Z",
            ),
            (
                "2026-11-26T11:15:33",
                "2026-11-26T11:15:33Z",
                "2026-11-26T11:15:34Z",
            ),
            (
                "2026-11-26 11:15:33.250",
                "2026-11-26T11:15:33.250Z",
                "2026-11-26T11:15:33.251Z",
            ),
            (
                "2026-11-26T11:15:33Z",
                "2026-11-26T11:15:33Z",
                "2026-11-26T11:15:34Z",
            ),
            (
                "2026-11-26T11:15:33.25Z",
                "2026-11-26T11:15:33.250Z",
                "2026-11-26T11:15:33.251Z",
            ),
            (
                "2026-11-26T12:15:33+01:00",
                "2026-11-26T11:15:33Z",
                "2026-11-26T11:15:34Z",
            ),
        ] {
            let typed = Typed::parse(text).unwrap_or_else(|| panic!("{text}"));
            let moment = |text: &str| text.parse::<DateTime<Utc>>().expect("a moment");
            assert_eq!(
                (typed.from, typed.until),
                (moment(from), moment(until)),
                "{text}"
            );
        }
        for text in [
            "",
            "now",
            "11:15",
            "2026-13-01",
            "2026-11-26 25:00",
            "26.11.2026",
        ] {
            assert_eq!(Typed::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_id_lies_between_the_bounds_of_its_moment() {
        let id = format!("pay_{}", uuid::Uuid::now_v7());
        let at = made_at(&id).expect("a time");
        assert!(first_id_at("pay", at) <= id);
        assert!(id < first_id_at("pay", at + TimeDelta::milliseconds(1)));
        assert_eq!(made_at("pay_none"), None);
        assert_eq!(
            first_id_at("pay", DateTime::<Utc>::MIN_UTC),
            "pay_00000000-0000"
        );
    }
}
