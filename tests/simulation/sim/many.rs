//! Many histories, on all cores.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{
    choices::Choices,
    history::{End, play},
    shrink::{broken, shrink},
    switches::Switches,
    world::Counts,
};

/// What came of many histories.
#[derive(Default)]
pub(crate) struct Played {
    pub(crate) histories: u64,
    /// How often each thing was met that a history can meet.
    pub(crate) met: Counts,
    /// How often each promise was checked.
    pub(crate) checks: Counts,
    /// The lowest seed that broke a promise.
    pub(crate) broken: Option<(u64, End)>,
}

/// Plays a history for each seed, and ends at the lowest one that breaks a promise.
pub(crate) fn play_all(seeds: Range<u64>, threads: usize, switches: &Switches) -> Played {
    let next = AtomicU64::new(seeds.start);
    let played = Mutex::new(Played::default());
    let lock = || played.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let mut mine = Played::default();
        loop {
            let taken = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seed| {
                (seed < seeds.end).then_some(seed + 1)
            });
            let Ok(seed) = taken else { break };
            let end = play(Choices::from_seed(seed), switches, false);
            mine.histories += 1;
            add(&mut mine.met, &end.met);
            add(&mut mine.checks, &end.checks);
            if end.violation.is_some() {
                // Seeds are taken in order, so that the lower ones are being played, or were.
                next.store(seeds.end, Ordering::Relaxed);
                let mut played = lock();
                if played.broken.as_ref().is_none_or(|(known, _)| seed < *known) {
                    played.broken = Some((seed, end));
                }
            }
        }
        let mut played = lock();
        played.histories += mine.histories;
        add(&mut played.met, &mine.met);
        add(&mut played.checks, &mine.checks);
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    played.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The story of a history that breaks a promise, told as short as it gets.
pub(crate) fn explain(seed: u64, end: &End, switches: &Switches) -> String {
    let wanted = broken(end);
    let script = shrink(end.choices.clone(), switches, |end| broken(end) == wanted);
    let story = play(Choices::from_script(script.clone()), switches, true).story.join("\n");
    let violation = end.violation.clone().unwrap_or_default();
    format!(
        "{violation}\n\nSeed {seed} breaks it; a shorter history that does, choices `{script}`:\n\n{story}"
    )
}

fn add(sum: &mut Counts, more: &Counts) {
    for (what, times) in more {
        match sum.get_mut(what) {
            Some(known) => *known += times,
            None => _ = sum.insert(what.clone(), *times),
        }
    }
}
