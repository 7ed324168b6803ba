//! Whole syncs under random histories: see [`sim`].

mod sim;

use std::thread;

use sim::{
    choices::{Choices, Script},
    coverage,
    history::{End, play},
    many::{explain, play_all},
    shrink::shrink,
    switches::Switches,
};

/// Histories of one run of the tests.
const SEEDS: u64 = 2_000;

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn promises_hold_in_every_history_and_every_kind_of_trouble_is_met() {
    let switches = Switches::default();
    let played = play_all(1..SEEDS + 1, threads(), &switches);
    if let Some((seed, end)) = &played.broken {
        panic!("{}", explain(*seed, end, &switches));
    }
    for (what, times) in &played.met {
        println!("{times:>9} {what}");
    }
    for (what, times) in &played.checks {
        println!("{times:>9} {what}");
    }
    let (missing, surprising) = (coverage::missing(&played), coverage::surprising(&played));
    assert!(missing.is_empty(), "{SEEDS} histories met none of these: {missing:#?}");
    assert!(surprising.is_empty(), "these are not in the list of what is to be met: {surprising:#?}");
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    let switches = Switches::default();
    let tell = |seed| play(Choices::from_seed(seed), &switches, true).story;
    let first: Vec<_> = (1..=30).map(tell).collect();
    // Another thread, where nothing is as it was but the seed.
    let second: Vec<_> = thread::scope(|scope| {
        let second = scope.spawn(|| (1..=30).rev().map(tell).collect());
        second.join().expect("a story can be told")
    });
    for (first, second) in first.iter().zip(second.iter().rev()) {
        assert!(!first.is_empty());
        assert_eq!(first, second);
    }
}

#[test]
fn choices_that_are_written_down_tell_the_same_story_again() {
    let switches = Switches::default();
    for seed in 1..=30 {
        let end = play(Choices::from_seed(seed), &switches, true);
        let written: Script = end.choices.to_string().parse().expect("what is printed can be read");
        assert_eq!(written, end.choices);
        assert_eq!(play(Choices::from_script(written), &switches, true).story, end.story);
    }
}

#[test]
fn a_history_shrinks_to_what_is_wanted_of_it() {
    let switches = Switches::default();
    let wanted = |end: &End| end.met.contains_key("outcome: Update, unknown");
    let long = (1..100).map(|seed| play(Choices::from_seed(seed), &switches, false)).find(wanted);
    let long = long.expect("many answers are lost in a hundred histories").choices;
    let short = shrink(long, &switches, wanted);
    assert!(wanted(&play(Choices::from_script(short.clone()), &switches, false)));
    let (not_calm, _) = short.weight();
    assert!(not_calm <= 3, "a row, and an answer that is lost: {short}");
}
