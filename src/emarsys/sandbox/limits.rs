//! How much is allowed: requests a minute for each API user, rows and bytes for each request.

use std::{collections::HashMap, time::SystemTime};

use super::reply;

/// Contacts in one create, update, delete, `checkids` or `getdata`.
pub(super) const CONTACTS_MAX: usize = 1_000;
/// External ids in one call about a contact list.
pub(super) const LIST_IDS_MAX: usize = 10_000;
/// Bytes of an update.
pub(super) const UPDATE_BYTES_MAX: usize = 8_000_000;
/// Bytes of any other request.
pub(super) const BYTES_MAX: usize = 10_000_000;
/// Ids on one page of a list's members.
pub(super) const PAGE_MAX: usize = 100_000;
/// Ids on one page of a list's members if the caller does not say.
pub(super) const PAGE_DEFAULT: usize = 10_000;

/// Seconds of a window, which begins with its first request.
const WINDOW_SECONDS: u64 = 60;

/// The request windows of all API users.
#[derive(Debug)]
pub(super) struct Windows {
    limit: u64,
    open: HashMap<String, Window>,
}

/// One user's current window. It begins and ends at full seconds, as `X-Ratelimit-Reset` cannot say more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    start: u64,
    used: u64,
    limit: u64,
}

impl Windows {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, open: HashMap::new() }
    }

    /// Counts one request of a user and returns the window as it is now.
    pub(super) fn count(&mut self, user: &str, now: SystemTime) -> Window {
        let window = self.current(user, now);
        window.used = window.used.saturating_add(1);
        *window
    }

    /// Uses up the rest of a user's window.
    pub(super) fn exhaust(&mut self, user: &str, now: SystemTime) {
        let window = self.current(user, now);
        window.used = window.used.max(window.limit);
    }

    fn current(&mut self, user: &str, now: SystemTime) -> &mut Window {
        let second = reply::unix_seconds(now);
        let fresh = Window { start: second, used: 0, limit: self.limit };
        let window = self.open.entry(user.to_owned()).or_insert(fresh);
        if second >= window.reset() {
            *window = fresh;
        }
        window
    }
}

impl Window {
    /// Whether the request that was counted last is one too many.
    pub(super) fn exceeded(self) -> bool {
        self.used > self.limit
    }

    /// The three limit headers.
    pub(super) fn headers(&self) -> [(&'static str, String); 3] {
        [
            ("X-Ratelimit-Limit", self.limit.to_string()),
            ("X-Ratelimit-Remaining", self.limit.saturating_sub(self.used).to_string()),
            ("X-Ratelimit-Reset", self.reset().to_string()),
        ]
    }

    fn reset(&self) -> u64 {
        self.start.saturating_add(WINDOW_SECONDS)
    }
}
