//! The local time of the Emarsys servers, Europe/Vienna: UTC+1, and UTC+2 from the last Sunday of March to the last
//! Sunday of October, changing at 01:00 UTC. (The rule since 1996; nothing older reaches the sandbox.)

use std::time::SystemTime;

use chrono::{DateTime, Datelike, Duration, NaiveDate, NaiveDateTime, Utc};

/// A moment as replies print it: local, without a zone.
pub(super) fn print(moment: SystemTime) -> String {
    let utc = DateTime::<Utc>::from(moment).naive_utc();
    (utc + offset(utc)).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// The UTC time of a local one. Of the hour that occurs twice in autumn the first one is taken.
pub(super) fn to_utc(local: NaiveDateTime) -> NaiveDateTime {
    let summer = local - Duration::hours(2);
    if offset(summer) == Duration::hours(2) { summer } else { local - Duration::hours(1) }
}

fn offset(utc: NaiveDateTime) -> Duration {
    let change = |month| last_sunday(utc.year(), month).and_then(|day| day.and_hms_opt(1, 0, 0));
    let summer = change(3).is_some_and(|start| utc >= start) && change(10).is_some_and(|end| utc < end);
    Duration::hours(if summer { 2 } else { 1 })
}

/// The last Sunday of a month with 31 days.
fn last_sunday(year: i32, month: u32) -> Option<NaiveDate> {
    let last = NaiveDate::from_ymd_opt(year, month, 31)?;
    Some(last - Duration::days(i64::from(last.weekday().num_days_from_sunday())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_follows_summer_time() {
        for (local, utc) in [
            ("2026-01-15T12:00:00", "2026-01-15T11:00:00"),
            ("2026-03-29T01:59:59", "2026-03-29T00:59:59"),
            ("2026-03-29T03:00:00", "2026-03-29T01:00:00"),
            ("2026-07-15T12:00:00", "2026-07-15T10:00:00"),
            ("2026-10-25T03:00:00", "2026-10-25T02:00:00"),
        ] {
            let parsed = |text: &str| text.parse::<NaiveDateTime>().unwrap();
            assert_eq!(to_utc(parsed(local)), parsed(utc));
            assert_eq!(print(parsed(utc).and_utc().into()), local.replace('T', " "));
        }
    }
}
