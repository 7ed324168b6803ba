//! One thread that runs processes, moves the time when none of them can go on, and lets them die.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use super::{choices::Stream, world::Shared};

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

/// Runs processes side by side until each has ended or died; `None` stands for one that died. `all` are their numbers.
pub(crate) fn run<T>(shared: &Shared, all: Vec<(usize, Work<T>)>) -> Vec<Option<T>> {
    let mut ends: Vec<Option<T>> = all.iter().map(|_| None).collect();
    let mut alive: Vec<_> = all
        .into_iter()
        .enumerate()
        .map(|(at, (process, work))| (at, process, work, Arc::new(Woken(AtomicBool::new(true)))))
        .collect();
    let mut polls = 0;
    while !alive.is_empty() {
        polls += 1;
        if polls > POLLS_MAX {
            shared.lock().violate("a run never ends");
        }
        if shared.lock().is_over() {
            break;
        }
        let ready: Vec<usize> =
            (0..alive.len()).filter(|at| alive[*at].3.0.load(Ordering::Relaxed)).collect();
        if ready.is_empty() {
            let world = &mut *shared.lock();
            match world.next_moment() {
                Some(next) => world.advance(next),
                None => world.violate("a run waits for something that never comes"),
            }
            continue;
        }
        let which =
            if ready.len() == 1 { 0 } else { shared.lock().choices.on(Stream::Schedule).below(ready.len()) };
        let index = ready[which];
        let (at, process, work, woken) = &mut alive[index];
        let (at, process) = (*at, *process);
        woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(woken));
        let is_done = match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(end) => {
                ends[at] = Some(end);
                true
            }
            Poll::Pending => false,
        };
        let dies = !is_done && shared.lock().dies(process);
        if is_done || dies {
            drop(alive.remove(index));
        }
    }
    ends
}
