//! Guards: what a plan must not exceed, looked at before the first write.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, plan::Counts};

/// A number of rows, or a share of the rows that the state knows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Share {
    /// So many rows.
    Rows(u64),
    /// So many in a hundred of the rows known to the state. It says nothing while the state is empty.
    Percent(f64),
}

impl Share {
    /// Whether `rows` of `known` are more than this; always no of nothing.
    pub(crate) fn is_exceeded(self, rows: u64, known: u64) -> bool {
        match self {
            Self::Rows(max) => rows > max,
            Self::Percent(_) if known == 0 => false,
            #[expect(
                clippy::cast_precision_loss,
                reason = "a share need not be exact to the row beyond 2^53 rows"
            )]
            Self::Percent(max) => rows as f64 * 100.0 > max * known as f64,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Rows(rows) => format!("{rows} rows"),
            Self::Percent(percent) => format!("{percent} % of the rows known"),
        }
    }
}

/// What a plan must not exceed. By default a plan needs one source row: an empty source is never the truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct Guards {
    rows_min: u64,
    added_max: Option<Share>,
    changed_max: Option<Share>,
    removed_max: Option<Share>,
    pub(crate) rejected_max: Option<Share>,
}

impl Default for Guards {
    fn default() -> Self {
        Self { rows_min: 1, added_max: None, changed_max: None, removed_max: None, rejected_max: None }
    }
}

impl Guards {
    /// Whether each share is one: no comparison with what is not a number refuses anything.
    pub(super) fn check(&self) -> Result<()> {
        let shares = [self.added_max, self.changed_max, self.removed_max, self.rejected_max];
        let is_share =
            |share: &Share| !matches!(share, Share::Percent(max) if !(max.is_finite() && *max >= 0.0));
        if shares.iter().flatten().all(is_share) {
            return Ok(());
        }
        Err(Error::config(
            "a guard has a share that is not a number of percent, 0 or more: correct it, or leave the guard out",
        ))
    }

    /// The fewest rows that a source may have; 1 by default.
    pub fn rows_min(mut self, rows: u64) -> Self {
        self.rows_min = rows;
        self
    }

    /// The most rows that may be added.
    pub fn added_max(mut self, share: Share) -> Self {
        self.added_max = Some(share);
        self
    }

    /// The most rows that may have changed.
    pub fn changed_max(mut self, share: Share) -> Self {
        self.changed_max = Some(share);
        self
    }

    /// The most rows that may be removed.
    pub fn removed_max(mut self, share: Share) -> Self {
        self.removed_max = Some(share);
        self
    }

    /// The most rows that the destination may reject in a run before the run stops; a percentage is of the outcomes, and
    /// waits for the first 1,000 of them.
    pub fn rejected_max(mut self, share: Share) -> Self {
        self.rejected_max = Some(share);
        self
    }

    /// Why the plan is refused, if it is.
    pub(crate) fn refusals(&self, counts: &Counts, known: u64) -> Vec<String> {
        let mut refusals = Vec::new();
        if counts.rows < self.rows_min {
            refusals.push(format!(
                "the source has {} rows, fewer than the {} expected: check the source, or waive the guards",
                counts.rows, self.rows_min
            ));
        }
        for (share, rows, what) in [
            (self.added_max, counts.added, "added"),
            (self.changed_max, counts.changed, "changed"),
            (self.removed_max, counts.removed, "removed"),
        ] {
            if let Some(share) = share.filter(|share| share.is_exceeded(rows, known)) {
                let allowed = share.words();
                refusals.push(format!(
                    "{rows} rows would be {what}, more than {allowed}: check the source, or waive the guards"
                ));
            }
        }
        if counts.removed > 0 && counts.keyless > 0 {
            refusals.push(format!(
                "{} rows have an unusable key and cannot vouch for anybody, and {} rows would be removed: mend the keys, \
                 or waive the guards",
                counts.keyless, counts.removed
            ));
        }
        refusals
    }
}
