//! Makes a history as short as it gets, with what is wanted of it still in it.

use super::{
    choices::{Choices, Script},
    history::{End, play},
    switches::Switches,
};

/// Histories that are tried at most.
const TRIES_MAX: u32 = 5_000;

/// What a violation is about, whatever the numbers in it.
pub(crate) fn broken(end: &End) -> Option<String> {
    let text = end.violation.as_ref()?;
    let (promise, rest) = text.split_once(':').unwrap_or((text, ""));
    Some(format!("{promise}{}", rest.replace(|letter: char| letter.is_ascii_digit(), "")))
}

/// The choices of a shorter history of which the same is true.
pub(crate) fn shrink(script: Script, switches: &Switches, is_wanted: impl Fn(&End) -> bool) -> Script {
    let mut search = Search { best: script.trimmed(), tries: 0, switches, is_wanted };
    loop {
        let before = search.best.weight();
        for stream in 0..search.best.0.len() {
            search.calm(stream);
            search.leave_out(stream);
            search.lower(stream);
        }
        if search.best.weight() == before || search.tries >= TRIES_MAX {
            return search.best;
        }
    }
}

struct Search<'s, F> {
    best: Script,
    tries: u32,
    switches: &'s Switches,
    is_wanted: F,
}

impl<F: Fn(&End) -> bool> Search<'_, F> {
    /// Takes another script if it is shorter and what is wanted is true of it.
    fn takes(&mut self, script: Script) -> bool {
        self.tries += 1;
        if self.tries > TRIES_MAX {
            return false;
        }
        let end = play(Choices::from_script(script), self.switches, false);
        let made = end.choices.clone().trimmed();
        // Lower choices count as shorter, too, if nothing else does.
        let is_shorter = made.weight() <= self.best.weight() && made != self.best && (self.is_wanted)(&end);
        if is_shorter {
            self.best = made;
        }
        is_shorter
    }

    /// Makes choices calm, many at once and then fewer.
    fn calm(&mut self, stream: usize) {
        let mut chunk = self.best.0[stream].len();
        while chunk > 0 {
            let mut at = 0;
            while at < self.best.0[stream].len() {
                let to = (at + chunk).min(self.best.0[stream].len());
                if self.best.0[stream][at..to].iter().any(|taken| *taken > 0) {
                    let mut calmer = self.best.clone();
                    calmer.0[stream][at..to].fill(0);
                    self.takes(calmer);
                }
                at = to;
            }
            chunk /= 2;
        }
    }

    /// Leaves choices out, so that those that follow come earlier.
    fn leave_out(&mut self, stream: usize) {
        let mut chunk = self.best.0[stream].len();
        while chunk > 0 {
            let mut at = 0;
            while at < self.best.0[stream].len() {
                let to = (at + chunk).min(self.best.0[stream].len());
                let mut fewer = self.best.clone();
                fewer.0[stream].drain(at..to);
                if !self.takes(fewer) {
                    at = to;
                }
            }
            chunk /= 2;
        }
    }

    /// Lowers choices.
    fn lower(&mut self, stream: usize) {
        let mut at = 0;
        while let Some(taken) = self.best.0[stream].get(at).copied() {
            for lower in 1..taken {
                let mut lowered = self.best.clone();
                lowered.0[stream][at] = lower;
                if self.takes(lowered) {
                    break;
                }
            }
            at += 1;
        }
    }
}
