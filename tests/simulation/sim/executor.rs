//! One thread that runs processes, moves the time when none of them can go on, and lets them die.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use super::{choices::Stream, people::Lot, world::Shared};

/// Polls of one run at most; a run that needs more never ends.
const POLLS_MAX: u64 = 30_000;

pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A process that runs, or is suspended.
struct Process<T> {
    /// Its place among the ends.
    at: usize,
    number: usize,
    work: Work<T>,
    woken: Arc<Woken>,
    suspended_until: u64,
}

impl<T> Process<T> {
    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }
}

/// Runs processes side by side until each has ended or died; `None` stands for one that died. `all` are their numbers.
pub(crate) fn run<T>(shared: &Shared, all: Vec<(usize, Work<T>)>) -> Vec<Option<T>> {
    let mut ends: Vec<Option<T>> = all.iter().map(|_| None).collect();
    let begun = |(at, (number, work))| Process {
        at,
        number,
        work,
        woken: Arc::new(Woken(AtomicBool::new(true))),
        suspended_until: 0,
    };
    let mut alive: Vec<Process<T>> = all.into_iter().enumerate().map(begun).collect();
    let mut polls = 0;
    while !alive.is_empty() {
        polls += 1;
        if polls > POLLS_MAX {
            shared.lock().violate("a run never ends");
        }
        if shared.lock().is_over() {
            break;
        }
        let now = shared.lock().clock.now();
        let can_go_on = |process: &Process<T>| process.is_woken() && process.suspended_until <= now;
        let ready: Vec<usize> = (0..alive.len()).filter(|at| can_go_on(&alive[*at])).collect();
        if ready.is_empty() {
            let world = &mut *shared.lock();
            let resumed =
                alive.iter().filter(|process| process.is_woken()).map(|process| process.suspended_until);
            match world.next_moment().into_iter().chain(resumed).min() {
                Some(next) => world.advance(next),
                None => world.violate("a run waits for something that never comes"),
            }
            continue;
        }
        let which =
            if ready.len() == 1 { 0 } else { shared.lock().choices.on(Stream::Schedule).below(ready.len()) };
        let index = ready[which];
        let process = &mut alive[index];
        process.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&process.woken));
        if let Poll::Ready(end) = process.work.as_mut().poll(&mut Context::from_waker(&waker)) {
            ends[process.at] = Some(end);
            drop(alive.remove(index));
            continue;
        }
        let lot = shared.lock().lot(process.number);
        match lot {
            Lot::GoesOn => {}
            Lot::Dies => drop(alive.remove(index)),
            Lot::IsSuspendedUntil(moment) => process.suspended_until = moment,
        }
    }
    ends
}
