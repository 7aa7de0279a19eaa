//! Dates as HTTP writes them (RFC 9110, section 5.6.7), in place of the crate of this name.
//!
//! hyper writes the date down whenever it looks at a connection, and `HttpDate::from` of that crate panics where the clock
//! stands before 1970 or behind 9999: no request would be answered. Here such a time is the nearest one that can be written.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// The last second of the year 9999.
const MAX_SECONDS: u64 = 253_402_300_799;
/// The first of January 1970 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
/// The same in the form of RFC 850.
const LONG_WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A date in whole seconds, from 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpDate(u64);

/// Text that is no date as HTTP writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error(());

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("this is no date such as `Sun, 06 Nov 1994 08:49:37 GMT`")
    }
}

impl std::error::Error for Error {}

impl From<SystemTime> for HttpDate {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().min(MAX_SECONDS))
    }
}

impl From<HttpDate> for SystemTime {
    fn from(date: HttpDate) -> Self {
        UNIX_EPOCH + Duration::from_secs(date.0)
    }
}

impl Display for HttpDate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let days = self.0 / DAY_SECONDS;
        let second = self.0 % DAY_SECONDS;
        let weekday = WEEKDAYS[(days % 7) as usize];
        let (year, month, day) = civil_date(days);
        let hour = second / 3_600;
        let minute = second / 60 % 60;
        let second = second % 60;
        write!(f, "{weekday}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", MONTHS[month])
    }
}

impl FromStr for HttpDate {
    type Err = Error;

    /// Reads the form that is written today, and the two obsolete ones. A leap second is the second after it.
    fn from_str(text: &str) -> Result<Self, Error> {
        DateParts::parse(text).and_then(|parts| parts.to_date()).ok_or(Error(()))
    }
}

/// The parts of a date, whatever its form.
struct DateParts<'a> {
    weekday: &'a str,
    day: &'a str,
    month: &'a str,
    year: u64,
    time: &'a str,
}

impl<'a> DateParts<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        Some(match words[..] {
            // Sun, 06 Nov 1994 08:49:37 GMT
            [weekday, day, month, year, time, "GMT"] if day.len() == 2 => {
                Self { weekday: weekday.strip_suffix(',')?, day, month, year: parse_digits(year, 4)?, time }
            }
            // Sunday, 06-Nov-94 08:49:37 GMT
            [weekday, date, time, "GMT"] => {
                let [day, month, year] = date.split('-').collect::<Vec<_>>()[..] else { return None };
                let weekday = LONG_WEEKDAYS.iter().position(|name| weekday.strip_suffix(',') == Some(name))?;
                let weekday = WEEKDAYS[weekday];
                let year = parse_digits(year, 2)?;
                Self { weekday, day, month, year: if year < 70 { 2_000 + year } else { 1_900 + year }, time }
            }
            // Sun Nov  6 08:49:37 1994
            [weekday, month, "", day, time, year] if day.len() == 1 => {
                Self { weekday, day, month, year: parse_digits(year, 4)?, time }
            }
            [weekday, month, day, time, year] if day.len() == 2 => {
                Self { weekday, day, month, year: parse_digits(year, 4)?, time }
            }
            _ => return None,
        })
    }

    /// The date, if there is such a day, and it is this day of the week.
    fn to_date(&self) -> Option<HttpDate> {
        let month = MONTHS.iter().position(|name| *name == self.month)?;
        let day =
            parse_digits(self.day, self.day.len()).filter(|day| (1..=month_days(self.year, month)).contains(day))?;
        let clock: Vec<&str> = self.time.split(':').collect();
        let [hour, minute, second] = clock[..] else { return None };
        let hour = parse_digits(hour, 2).filter(|hour| *hour < 24)?;
        let minute = parse_digits(minute, 2).filter(|minute| *minute < 60)?;
        let second = parse_digits(second, 2).filter(|second| *second <= 60)?;
        let years = self.year.checked_sub(1970)?;
        let days = years * 365
            + leap_days(1970, self.year)
            + (0..month).map(|month| month_days(self.year, month)).sum::<u64>()
            + day
            - 1;
        let date = HttpDate((days * DAY_SECONDS + hour * 3_600 + minute * 60 + second).min(MAX_SECONDS));
        (WEEKDAYS[(days % 7) as usize] == self.weekday).then_some(date)
    }
}

/// A number of so many digits.
fn parse_digits(text: &str, digits: usize) -> Option<u64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The date as HTTP writes it.
#[must_use]
pub fn fmt_http_date(time: SystemTime) -> String {
    HttpDate::from(time).to_string()
}

/// The time of a date as HTTP writes it.
///
/// # Errors
/// [`Error`] for anything else.
pub fn parse_http_date(text: &str) -> Result<SystemTime, Error> {
    text.parse::<HttpDate>().map(SystemTime::from)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days of a month, which counts from 0.
fn month_days(year: u64, month: usize) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Year, month from 0 and day from 1 of a day that counts from the first of January 1970.
fn civil_date(days: u64) -> (u64, usize, u64) {
    // 400 years have always as many days; a first guess that is never too late, and a few steps from there.
    let mut year = 1970 + days / 366;
    let mut rest = days - (year - 1970) * 365 - leap_days(1970, year);
    while rest >= 365 + u64::from(is_leap(year)) {
        rest -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

/// Leap days of the years from one to before another.
fn leap_days(from: u64, to: u64) -> u64 {
    leap_days_before(to) - leap_days_before(from)
}

fn leap_days_before(year: u64) -> u64 {
    (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn http_date_formatted_parses_back() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_475_419_451, "Sun, 02 Oct 2016 14:44:11 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (MAX_SECONDS, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(fmt_http_date(time_at(seconds)), text);
            assert_eq!(parse_http_date(text), Ok(time_at(seconds)));
        }
    }

    #[test]
    fn http_date_obsolete_form_or_leap_second_parses() {
        for (text, seconds) in [
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777),
            ("Tue Feb 29 00:00:00 2000", 951_782_400),
            ("Saturday, 31-Dec-16 23:59:60 GMT", 1_483_228_800),
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
            ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
        ] {
            assert_eq!(parse_http_date(text), Ok(time_at(seconds)), "{text}");
        }
        for (day, name) in (1..).zip(LONG_WEEKDAYS) {
            assert!(parse_http_date(&format!("{name}, {day:02}-Jan-70 00:00:00 GMT")).is_ok(), "{name}");
        }
    }

    #[test]
    fn http_date_out_of_range_is_clamped() {
        for before in [UNIX_EPOCH - Duration::from_nanos(1), UNIX_EPOCH - Duration::from_secs(200_000_000)] {
            assert_eq!(fmt_http_date(before), "Thu, 01 Jan 1970 00:00:00 GMT");
        }
        assert_eq!(fmt_http_date(time_at(MAX_SECONDS + 1)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn civil_date_consecutive_days_are_consecutive() {
        let mut before = (1969, 11, 31);
        for days in 0..=MAX_SECONDS / DAY_SECONDS {
            let (year, month, day) = civil_date(days);
            let next = match before {
                (year, month, day) if day < month_days(year, month) => (year, month, day + 1),
                (year, 11, _) => (year + 1, 0, 1),
                (year, month, _) => (year, month + 1, 1),
            };
            assert_eq!((year, month, day), next);
            before = next;
        }
    }

    #[test]
    fn http_date_malformed_is_rejected() {
        for wrong in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Apr 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Monday, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Mon Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(wrong), Err(Error(())), "{wrong}");
        }
    }
}
