//! `time_range`: between which moments something must have happened.

use std::time::{Duration, SystemTime};

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta};
use serde_json::Value;

use super::{
    super::{reply::Failure, vienna},
    order::invalid,
};

/// Two moments, both of them inside.
pub(super) struct TimeRange(SystemTime, SystemTime);

impl TimeRange {
    pub(super) fn parse(sent: &Value) -> Result<Self, Failure> {
        let sent = sent.as_array().ok_or_else(|| invalid("data format for time_range. Array expected"))?;
        let [start, end] = sent.as_slice() else {
            return Err(invalid("data format for time_range. Array size must be 2"));
        };
        let moment = |sent: &Value, late: bool| {
            let wrong = || Failure::bad(10_001, "Valid start_date and end_date is required");
            sent.as_str().and_then(|text| local_time(text, late)).ok_or_else(wrong)
        };
        let (start, end) = (moment(start, false)?, moment(end, true)?);
        if end < start {
            return Err(invalid("value for end_date: end_date is earlier than the start_date"));
        }
        Ok(Self(start, end))
    }

    pub(super) fn holds(&self, moment: SystemTime) -> bool {
        (self.0..=self.1).contains(&moment)
    }
}

/// The moment that a text means in Vienna: the beginning of the day, minute or second, or the end of it.
fn local_time(text: &str, late: bool) -> Option<SystemTime> {
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let with = |form| NaiveDateTime::parse_from_str(text, form).ok();
    let (start, length) = (day().map(|start| (start, TimeDelta::days(1))))
        .or_else(|| Some((with("%Y-%m-%d %H:%M:%S")?, TimeDelta::seconds(1))))
        .or_else(|| Some((with("%Y-%m-%d %H:%M")?, TimeDelta::minutes(1))))?;
    // Far from where times cannot be calculated with.
    if !(1970..=9999).contains(&start.year()) {
        return None;
    }
    let moment = |local: NaiveDateTime| SystemTime::from(vienna::to_utc(local).and_utc());
    if !late {
        return Some(moment(start));
    }
    moment(start + length).checked_sub(Duration::from_nanos(1))
}
