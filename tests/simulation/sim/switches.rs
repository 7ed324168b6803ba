//! What a history leaves out, for whoever looks for the cause of something.

use std::{collections::BTreeSet, str::FromStr};

/// One thing that a history does without, or always has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Switch {
    NoNetworkFaults,
    NoCrashes,
    NoDiskFaults,
    NoOthers,
    NoStops,
    OneRunner,
    OneKey,
    SteadySetup,
    UpdateOnly,
    TightLimit,
    V2,
    V3,
}

impl Switch {
    /// All of them: the name, and what it does.
    pub(crate) const ALL: [(Self, &str, &str); 12] = [
        (Self::NoNetworkFaults, "no-network-faults", "every request arrives and is answered"),
        (Self::NoCrashes, "no-crashes", "no process dies or is suspended"),
        (Self::NoDiskFaults, "no-disk-faults", "every commit is stored"),
        (Self::NoOthers, "no-others", "nobody else has to do with the account"),
        (Self::NoStops, "no-stops", "no run is told to stop, and no guard refuses one"),
        (Self::OneRunner, "one-runner", "no two runs at once, and no plan is applied twice"),
        (Self::OneKey, "one-key", "the source has one key"),
        (Self::SteadySetup, "steady-setup", "mode, list and mapping stay as they were at first"),
        (Self::UpdateOnly, "update-only", "insert mode is off"),
        (Self::TightLimit, "tight-limit", "12 requests a minute"),
        (Self::V2, "v2", "every client uses WSSE"),
        (Self::V3, "v3", "every client uses OAuth 2"),
    ];
}

/// What histories are restricted to; by default nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches(BTreeSet<Switch>);

impl Switches {
    pub(crate) fn has(&self, switch: Switch) -> bool {
        self.0.contains(&switch)
    }

    /// A probability, or none if the switch is set.
    pub(crate) fn unless(&self, switch: Switch, p: u64) -> u64 {
        if self.has(switch) { 0 } else { p }
    }
}

impl FromStr for Switches {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let find =
            |name: &str| Switch::ALL.iter().find(|(_, known, _)| *known == name).map(|(switch, ..)| *switch);
        let all =
            || Switch::ALL.iter().map(|(_, name, what)| format!("  {name}: {what}")).collect::<Vec<_>>();
        let found = names.map(|name| {
            find(name).ok_or_else(|| format!("there is no switch `{name}`, only\n{}", all().join("\n")))
        });
        found.collect::<Result<_, _>>().map(Self)
    }
}
