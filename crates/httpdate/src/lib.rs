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
/// The first of January 1970 was a Thursday. Today's form has the first three letters.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A date in whole seconds, from 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpDate(u64);

/// Text that is no date as HTTP writes them.
#[derive(Debug, PartialEq, Eq)]
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
        let weekday = &WEEKDAYS[(self.0 / DAY_SECONDS % 7) as usize][..3];
        // 1994-11-06T08:49:37Z
        let timestamp = humantime::format_rfc3339_seconds((*self).into()).to_string();
        let month: usize = timestamp[5..7].parse().map_err(|_| fmt::Error)?;
        let month = MONTHS[month - 1];
        write!(f, "{weekday}, {} {month} {} {} GMT", &timestamp[8..10], &timestamp[..4], &timestamp[11..19])
    }
}

impl FromStr for HttpDate {
    type Err = Error;

    /// Reads the form that is written today, and the two obsolete ones. A leap second is the second after it.
    fn from_str(text: &str) -> Result<Self, Error> {
        to_current_form(text).and_then(|date| parse_current_form(&date)).ok_or(Error(()))
    }
}

/// The form that is written today, of text that has one of the three forms if it is a date.
fn to_current_form(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words[..] {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [_, _, _, _, _, "GMT"] => text.to_owned(),
        // Sunday, 06-Nov-94 08:49:37 GMT
        [weekday, date, time, "GMT"] => {
            let weekday = WEEKDAYS.iter().find(|name| weekday.strip_suffix(',') == Some(name))?;
            let [day, month, year] = date.split('-').collect::<Vec<_>>()[..] else { return None };
            let century = if year < "70" { "20" } else { "19" };
            format!("{}, {day} {month} {century}{year} {time} GMT", &weekday[..3])
        }
        // Sun Nov  6 08:49:37 1994
        [weekday, month, "", day, time, year] => format!("{weekday}, 0{day} {month} {year} {time} GMT"),
        [weekday, month, day, time, year] => format!("{weekday}, {day} {month} {year} {time} GMT"),
        _ => return None,
    })
}

/// The date that is written just like this.
fn parse_current_form(text: &str) -> Option<HttpDate> {
    let without_leap_second = text.replace(":60 ", ":59 ");
    let month = MONTHS.iter().position(|name| text.get(8..11) == Some(name))? + 1;
    let timestamp =
        format!("{}-{month:02}-{}T{}Z", text.get(12..16)?, text.get(5..7)?, without_leap_second.get(17..25)?);
    let date = HttpDate::from(humantime::parse_rfc3339(&timestamp).ok()?);
    let leap_second = u64::from(text != without_leap_second);
    (date.to_string() == without_leap_second).then(|| HttpDate((date.0 + leap_second).min(MAX_SECONDS)))
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
        for (day, name) in (1..).zip(WEEKDAYS) {
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
    fn http_date_every_year_and_weekday_parses_back() {
        for days in (0..=MAX_SECONDS / DAY_SECONDS).step_by(61) {
            let time = time_at(days * DAY_SECONDS);
            assert_eq!(parse_http_date(&fmt_http_date(time)), Ok(time));
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
