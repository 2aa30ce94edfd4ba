//! The schedule of a cron: six fields, and the next time they match.

use jiff::civil::{Date, DateTime, Time, date};
use jiff::{ToSpan as _, Zoned};

use crate::dialect::Dialect;
use crate::limits::CRON_SEARCH_DAYS_MAX;

/// The times at which a cron runs.
///
/// Shape:  `second minute hour day month weekday`, split at white space. Each field is `*`, or a list,
///         separated by commas, of numbers, `2`; ranges, `2-5`; or periods, `0/5`.
/// Ranges: second and minute 0 to 59, hour 0 to 24, day 1 to 31, month 0 (January) to 11, weekday 0
///         (Sunday) to 6. Day and weekday must both match.
/// Errors: text of another form, a field without any value, a day that does not exist.
/// Source: pomelo-scheduler 0.3.9 and pinus-scheduler 1.7.4 `lib/cronTrigger`, which the test
///         `differential crons` runs beside it.
///
/// As in these: Pomelo reads the period `a/b` as all values with the remainder `a` after division by
/// `b`. Pinus reads it as `a`, `a + b` and so on. So `15/10` matches nothing in Pomelo, and 15, 25 … in
/// Pinus. Hour 24 is the first hour of the next day, in which only the first minute and second of the
/// fields count. If hour 23 matches too, hour 24 is ignored.
///
/// Unlike in these, invalid text is an error. There it ends the process or runs the cron once and at
/// once. `5x` and `1e1`, which JavaScript reads as numbers, are errors too. White space around the text
/// is allowed in Pomelo as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    seconds: Set,
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}

/// A set of numbers below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Set(u64);

impl Set {
    fn add(&mut self, value: u32) {
        self.0 |= 1 << value;
    }

    fn has(self, value: i8) -> bool {
        self.0 >> value & 1 == 1
    }

    /// Returns the smallest number that is at least `value`.
    fn from(self, value: i8) -> Option<i8> {
        let rest = self.0 >> value;
        (rest != 0).then(|| value + rest.trailing_zeros() as i8)
    }
}

/// A field: name, first value, last value.
type Field = (&'static str, u32, u32);

const FIELDS: [Field; 6] = [
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 24),
    ("day", 1, 31),
    ("month", 0, 11),
    ("weekday", 0, 6),
];

impl Schedule {
    /// Reads the six fields.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, String> {
        let accepted =
            "expected six fields, second minute hour day month weekday, such as \"0 30 10 * * *\"";
        let texts: Vec<&str> = text.split_whitespace().collect();
        let texts: [&str; 6] = texts
            .try_into()
            .map_err(|texts: Vec<_>| format!("{text:?} has {} fields; {accepted}", texts.len()))?;
        let mut sets = [Set::default(); 6];
        for ((set, field), of_field) in sets.iter_mut().zip(&FIELDS).zip(texts) {
            *set = read(of_field, field, dialect).map_err(|what| {
                let (name, first, last) = field;
                format!(
                    "{text:?}: {name} {of_field:?} {what}; expected *, or numbers from {first} to \
                     {last} such as 2, 2-5, 0/5, with commas between them"
                )
            })?;
        }
        let [seconds, minutes, hours, days, months, weekdays] = sets;
        let schedule = Self {
            seconds,
            minutes,
            hours,
            days,
            months,
            weekdays,
        };
        // The calendar repeats itself, so the search may begin on any day.
        match schedule.first_from(date(2000, 1, 1).at(0, 0, 0, 0)) {
            Some(_) => Ok(schedule),
            None => Err(format!("{text:?} names a time that never occurs")),
        }
    }

    /// Returns the next time after `after`, in its time zone, and at the earliest in the next second.
    /// Returns `None` at the end of time, which is the year 9999.
    ///
    /// A time that clocks show twice, in autumn, counts the first time only, unless the next second
    /// matches. So a cron of each second also runs in the repeated hour, while others pause. A time
    /// that clocks skip, in spring, counts an hour later.
    ///
    /// Bound: `limits::CRON_SEARCH_DAYS_MAX` days are searched.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        let first = after.checked_add(1.second()).ok()?;
        let first = first.with().subsec_nanosecond(0).build().ok()?;
        let shown = self.first_from(first.datetime())?;
        if shown == first.datetime() {
            return Some(first);
        }
        let zone = after.time_zone();
        let early = zone.to_ambiguous_zoned(shown).compatible().ok()?;
        if early > first {
            return Some(early);
        }
        zone.to_ambiguous_zoned(shown).later().ok()
    }

    /// Returns the first match at or after `from`, without regard to time zones.
    fn first_from(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        for _ in 0..CRON_SEARCH_DAYS_MAX {
            let next_date = date.tomorrow().ok()?;
            if self.has_date(date) {
                let start = if date == from.date() {
                    from.time()
                } else {
                    Time::midnight()
                };
                let of_day = self.time_from(start).map(|time| date.to_datetime(time));
                let of_hour_24 = self.hour_24().map(|time| next_date.to_datetime(time));
                let found = of_day.or(of_hour_24);
                if found.is_some() {
                    return found;
                }
            }
            date = next_date;
        }
        None
    }

    fn has_date(&self, date: Date) -> bool {
        self.months.has(date.month() - 1)
            && self.days.has(date.day())
            && self.weekdays.has(date.weekday().to_sunday_zero_offset())
    }

    /// Returns the first matching time of a day at or after `from`.
    fn time_from(&self, from: Time) -> Option<Time> {
        let (hour, minute) = (from.hour(), from.minute());
        let in_minute = || {
            (self.hours.has(hour) && self.minutes.has(minute)).then_some(())?;
            Some((hour, minute, self.seconds.from(from.second())?))
        };
        let first_second = self.seconds.from(0)?;
        let in_hour = || {
            self.hours.has(hour).then_some(())?;
            Some((hour, self.minutes.from(minute + 1)?, first_second))
        };
        let in_day = || {
            let later = self.hours.from(hour + 1).filter(|hour| *hour < 24)?;
            Some((later, self.minutes.from(0)?, first_second))
        };
        let (hour, minute, second) = in_minute().or_else(in_hour).or_else(in_day)?;
        Time::new(hour, minute, second, 0).ok()
    }

    /// Returns the time at which hour 24 of a day matches, on the next day.
    fn hour_24(&self) -> Option<Time> {
        let is_there = self.hours.has(24) && !self.hours.has(23);
        let first = || Time::new(0, self.minutes.from(0)?, self.seconds.from(0)?, 0).ok();
        is_there.then(first).flatten()
    }
}

fn read(text: &str, (_, first, last): &Field, dialect: Dialect) -> Result<Set, &'static str> {
    let mut set = Set::default();
    if text == "*" {
        // `*` does not include hour 24.
        let last = if *last == 24 { 23 } else { *last };
        (*first..=last).for_each(|value| set.add(value));
        return Ok(set);
    }
    for part in text.split(',') {
        for value in values(part, (*first, *last), dialect)? {
            if !(*first..=*last).contains(&value) {
                return Err("is out of range");
            }
            set.add(value);
        }
    }
    if set == Set::default() {
        return Err("has no value");
    }
    Ok(set)
}

/// Returns the values of one part of a list.
fn values(
    part: &str,
    (first, last): (u32, u32),
    dialect: Dialect,
) -> Result<Vec<u32>, &'static str> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().unwrap_or(u32::MAX));
        number.ok_or("is not a number, range or period")
    };
    if let Some((from, to)) = part.split_once('-') {
        let (from, to) = (number(from)?, number(to)?);
        if from <= to && to > last {
            return Err("is out of range");
        }
        return Ok((from..=to).collect());
    }
    if let Some((rest, period)) = part.split_once('/') {
        let (rest, period) = (number(rest)?, number(period)?);
        let has = |value: &u32| match dialect.cron_period_is_remainder() {
            true => value % period == rest,
            false => *value >= rest && (value - rest).is_multiple_of(period),
        };
        let from = match dialect.cron_period_begins_in_range() {
            true => first,
            false => 0,
        };
        return Ok(match period {
            0 => Vec::new(),
            _ => (from..=last).filter(has).collect(),
        });
    }
    Ok(vec![number(part)?])
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text, Dialect::Pomelo).unwrap()
    }

    /// The next ones after a moment, as clocks show them.
    fn next<const N: usize>(text: &str, zone: TimeZone, after: &str) -> [String; N] {
        let schedule = schedule(text);
        let after: DateTime = after.parse().unwrap();
        let mut at = after.to_zoned(zone).unwrap();
        [(); N].map(|()| {
            at = schedule.next(&at).unwrap();
            at.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
        })
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn utc(at: &str) -> Zoned {
        at.parse::<DateTime>()
            .unwrap()
            .to_zoned(TimeZone::UTC)
            .unwrap()
    }

    #[test]
    fn a_time_comes_when_all_fields_fit() {
        for (text, after, expected) in [
            (
                "* * * * * *",
                "2026-01-01T00:00:00.9",
                "2026-01-01 00:00:01 +00:00",
            ),
            (
                "0 30 10 * * *",
                "2026-01-01T10:30:00",
                "2026-01-02 10:30:00 +00:00",
            ),
            (
                "0 30 10 * * *",
                "2026-01-01T10:29:59",
                "2026-01-01 10:30:00 +00:00",
            ),
            // Month 0 is January, weekday 0 Sunday; day and weekday must both fit.
            (
                "0 0 0 13 * 5",
                "2026-01-01T00:00:00",
                "2026-02-13 00:00:00 +00:00",
            ),
            (
                "0 0 0 * 0 0",
                "2026-01-20T00:00:00",
                "2026-01-25 00:00:00 +00:00",
            ),
            (
                "59 59 23 31 11 *",
                "2026-12-31T23:59:59",
                "2027-12-31 23:59:59 +00:00",
            ),
            (
                "0 0 0 29 1 *",
                "2026-01-01T00:00:00",
                "2028-02-29 00:00:00 +00:00",
            ),
            (
                "5,2-3,0/20 * * * * *",
                "2026-01-01T00:00:03",
                "2026-01-01 00:00:05 +00:00",
            ),
            (
                "5,2-3,0/20 * * * * *",
                "2026-01-01T00:00:05",
                "2026-01-01 00:00:20 +00:00",
            ),
            // Hour 24 is the next day's.
            (
                "0 0 24 5 * *",
                "2026-01-01T00:00:00",
                "2026-01-06 00:00:00 +00:00",
            ),
            (
                "9,4 3,7 24 5 * *",
                "2026-01-05T22:00:00",
                "2026-01-06 00:03:04 +00:00",
            ),
            (
                "9,4 3,7 24 5 * *",
                "2026-01-06T00:03:04",
                "2026-02-06 00:03:04 +00:00",
            ),
        ] {
            assert_eq!(next(text, TimeZone::UTC, after), [expected], "{text}");
        }
    }

    #[test]
    fn a_period_is_what_the_dialect_says() {
        for (text, pomelo, pinus) in [
            ("0/20", &[0, 20, 40][..], &[0, 20, 40][..]),
            ("15/20", &[15, 35, 55], &[15, 35, 55]),
            ("25/20,1", &[1], &[1, 25, 45]),
        ] {
            for (dialect, expected) in [(Dialect::Pomelo, pomelo), (Dialect::Pinus, pinus)] {
                let mut set = Set::default();
                expected.iter().for_each(|value| set.add(*value));
                assert_eq!(read(text, &FIELDS[0], dialect), Ok(set), "{text}");
            }
        }
    }

    #[test]
    fn a_time_that_clocks_show_twice_or_never_comes_once() {
        // 02:00 is 03:00 on that day.
        let spring = next("0 30 2 * * *", berlin(), "2026-03-28T12:00:00");
        let expected = ["2026-03-29 03:30:00 +02:00", "2026-03-30 02:30:00 +02:00"];
        assert_eq!(spring, expected);
        let spring = next("0 0/30 * * * *", berlin(), "2026-03-29T01:15:00");
        let expected = [
            "2026-03-29 01:30:00 +01:00",
            "2026-03-29 03:00:00 +02:00",
            "2026-03-29 03:30:00 +02:00",
        ];
        assert_eq!(spring, expected);
        // 03:00 is 02:00 again on that day.
        let autumn = next("0 30 2 * * *", berlin(), "2026-10-24T12:00:00");
        let expected = ["2026-10-25 02:30:00 +02:00", "2026-10-26 02:30:00 +01:00"];
        assert_eq!(autumn, expected);
        let autumn = next("0 0/30 * * * *", berlin(), "2026-10-25T02:15:00");
        let expected = ["2026-10-25 02:30:00 +02:00", "2026-10-25 03:00:00 +01:00"];
        assert_eq!(autumn, expected);
        let autumn = next("* * * * * *", berlin(), "2026-10-25T02:59:58");
        let expected = ["2026-10-25 02:59:59 +02:00", "2026-10-25 02:00:00 +01:00"];
        assert_eq!(autumn, expected);
        // Whoever begins in the second such hour is not led back into the first.
        let second = utc("2026-10-25T01:10:30").with_time_zone(berlin());
        let after = schedule("0 0/15 * * * *").next(&second).unwrap();
        let after = after.strftime("%H:%M:%S %:z").to_string();
        assert_eq!(after, "02:15:00 +01:00");
    }

    #[test]
    fn a_time_that_never_comes_is_refused() {
        for text in ["0 0 0 30 1 *", "0 0 0 31 3,5,8,10 *"] {
            let refused = Schedule::parse(text, Dialect::Pomelo);
            assert_eq!(
                refused,
                Err(format!("{text:?} names a time that never occurs"))
            );
        }
        let rare = schedule("0 0 0 29 1 0").next(&utc("2097-01-01T00:00:00"));
        assert_eq!(rare, Some(utc("2128-02-29T00:00:00")));
    }

    #[test]
    fn an_error_names_the_wrong_field_of_a_time() {
        let refused = |text: &str| Schedule::parse(text, Dialect::Pomelo).unwrap_err();
        for (text, fields) in [("", 0), ("* * * * *", 5), ("* * * * * * *", 7)] {
            let expected = format!(
                "{text:?} has {fields} fields; expected six fields, second minute hour day month \
                 weekday, such as \"0 30 10 * * *\""
            );
            assert_eq!(refused(text), expected);
        }
        for (text, what) in [
            (
                "*/5 * * * * *",
                r#"second "*/5" is not a number, range or period; expected *, or numbers from 0 to 59"#,
            ),
            (
                "* 60 * * * *",
                r#"minute "60" is out of range; expected *, or numbers from 0 to 59"#,
            ),
            (
                "* * 25 * * *",
                r#"hour "25" is out of range; expected *, or numbers from 0 to 24"#,
            ),
            (
                "* * * 0-4000000000 * *",
                r#"day "0-4000000000" is out of range; expected *, or numbers from 1 to 31"#,
            ),
            (
                "* * * 99999999999 * *",
                r#"day "99999999999" is out of range;"#,
            ),
            (
                "* * * * 12 *",
                r#"month "12" is out of range; expected *, or numbers from 0 to 11"#,
            ),
            (
                "* * * * * 7",
                r#"weekday "7" is out of range; expected *, or numbers from 0 to 6"#,
            ),
            ("* * * * * 5-3", r#"weekday "5-3" has no value; "#),
            ("* * 0/0 * * *", r#"hour "0/0" has no value; "#),
            (
                "1, * * * * *",
                r#"second "1," is not a number, range or period; "#,
            ),
            (
                "-1 * * * * *",
                r#"second "-1" is not a number, range or period; "#,
            ),
        ] {
            let said = refused(text);
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn a_day_of_the_month_below_the_first_is_out_of_range_with_pinus() {
        let text = "0 0 0 0/5 * *";
        assert!(Schedule::parse(text, Dialect::Pomelo).is_ok());
        assert!(Schedule::parse(text, Dialect::Pinus).is_err());
    }
}
