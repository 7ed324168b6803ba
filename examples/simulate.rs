//! Whole syncs on simulated time: random histories of edits, runs and trouble, each from one seed.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 200000
//! cargo run --release --example simulate -- --seed 7 --replay
//! cargo run --release --example simulate -- --seeds 20000 --switches no-others,no-disk-faults
//! ```
//!
//! It ends at the first history that breaks a promise, and tells the story of a short one that does. The simulation is
//! the one of the tests, in `tests/simulation/sim`.

#[path = "../tests/simulation/sim/mod.rs"]
mod sim;

use std::{borrow::Cow, process::ExitCode, thread, time::Instant};

use clap::Parser;
use sim::{
    choices::{Choices, Script},
    coverage,
    history::{End, play},
    many::{explain, play_all},
    switches::Switches,
};

/// Plays random histories of whole syncs, and says which promise one breaks.
#[derive(Parser)]
struct Arguments {
    /// How many histories are played, each from the next seed.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Plays the history of this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Plays the history of these choices alone, as they are printed with a history that was made shorter.
    #[arg(long, conflicts_with_all = ["seeds", "first", "seed"])]
    choices: Option<Script>,
    /// Tells the stories, whether a promise breaks or not.
    #[arg(long)]
    replay: bool,
    /// What the histories leave out, separated by commas; a wrong name lists the right ones.
    #[arg(long, default_value = "")]
    switches: Switches,
    /// How many histories are played at once; by default as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Names a promise that breaks and the seed, without a story.
    #[arg(long)]
    brief: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(script) = arguments.choices.clone() {
        return one(&play(Choices::from_script(script), &arguments.switches, true));
    }
    let (first, seeds) = arguments.seed.map_or((arguments.first, arguments.seeds), |seed| (seed, 1));
    if arguments.replay {
        let all = (first..first.saturating_add(seeds)).map(|seed| {
            println!("The history of seed {seed}:");
            one(&play(Choices::from_seed(seed), &arguments.switches, true))
        });
        // All of them are told, whatever happens in one.
        return all.fold(ExitCode::SUCCESS, |code, end| if end == ExitCode::SUCCESS { code } else { end });
    }
    many(first, seeds, &arguments)
}

/// Tells the story of one history.
fn one(end: &End) -> ExitCode {
    println!("{}", end.story.join("\n"));
    match &end.violation {
        None => {
            println!("No promise is broken.");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("BROKEN: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(first: u64, seeds: u64, arguments: &Arguments) -> ExitCode {
    let threads = arguments.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let started = Instant::now();
    let played = play_all(first..first.saturating_add(seeds), threads, &arguments.switches);
    let seconds = started.elapsed().as_secs_f64();
    if !arguments.brief {
        table("Met, of faults and of everything else:", &played.met);
        table("Checked:", &played.checks);
        // A few histories meet a part of it.
        let missing = if played.histories < 2_000 { Vec::new() } else { coverage::missing(&played.met) };
        for missing in missing {
            println!("never met: {missing}");
        }
        for surprising in coverage::surprising(&played.met) {
            println!("met, and not in the list: {surprising}");
        }
    }
    let histories = u32::try_from(played.histories).unwrap_or(u32::MAX);
    let rate = f64::from(histories) / seconds;
    println!("{histories} histories in {seconds:.1} s on {threads} threads: {rate:.0} seeds a second");
    let Some((seed, end)) = &played.broken else {
        println!("No promise is broken.");
        return ExitCode::SUCCESS;
    };
    if arguments.brief {
        println!("BROKEN by seed {seed}: {}", end.violation.as_deref().unwrap_or_default());
    } else {
        println!("BROKEN: {}", explain(*seed, end, &arguments.switches));
    }
    ExitCode::FAILURE
}

fn table<'c>(heading: &str, counts: impl IntoIterator<Item = (&'c Cow<'static, str>, &'c u64)>) {
    println!("{heading}");
    for (what, times) in counts {
        println!("{times:>12}  {what}");
    }
    println!();
}
