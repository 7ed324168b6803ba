//! Whole syncs on simulated time: random histories of edits, runs and trouble, each from one seed.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 200000
//! cargo run --release --example simulate -- --seed 7
//! cargo run --release --example simulate -- --seeds 20000 --switches no-others,no-disk-faults
//! ```
//!
//! It ends at the first history that breaks a promise, and tells the story of a short one that does. The simulation is
//! the one of the tests, in `tests/simulation/sim`.

#[path = "../tests/simulation/sim/mod.rs"]
mod sim;

use std::{
    borrow::Cow,
    io::{self, ErrorKind, Write},
    num::{NonZeroU64, NonZeroUsize},
    ops::Range,
    process::ExitCode,
    thread,
    time::Instant,
};

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
    #[arg(long, default_value = "2000")]
    seeds: NonZeroU64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Tells the story of this seed, whether a promise breaks or not.
    #[arg(long, conflicts_with_all = ["seeds", "first", "brief"])]
    seed: Option<u64>,
    /// Tells the history of these choices, as they are printed with one that was made shorter: of each subject its choices
    /// in order, `0*12` for twelve calm ones, and calm ones after the last, such as `source 0*84 1 7, updates 17`.
    #[arg(long, conflicts_with_all = ["seeds", "first", "seed", "brief"])]
    choices: Option<Script>,
    /// Tells the stories of all seeds.
    #[arg(long, conflicts_with = "brief")]
    replay: bool,
    /// What the histories leave out or always have, separated by commas; a wrong name lists the right ones.
    #[arg(long, default_value = "", hide_default_value = true)]
    switches: Switches,
    /// How many histories are played at once; by default as many as there are cores.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Names a promise that breaks and the seed, without a story.
    #[arg(long)]
    brief: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse(), &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise holds.
fn run(arguments: &Arguments, out: &mut impl Write) -> io::Result<bool> {
    if let Some(script) = arguments.choices.clone() {
        return tell(&play(Choices::from_script(script), &arguments.switches, true), out);
    }
    let (first, count) = arguments.seed.map_or((arguments.first, arguments.seeds.get()), |seed| (seed, 1));
    let last = first.checked_add(count).ok_or_else(|| io::Error::other("there are no such seeds"))?;
    if !arguments.replay && arguments.seed.is_none() {
        return many(first..last, arguments, out);
    }
    let mut holds = true;
    for seed in first..last {
        writeln!(out, "The history of seed {seed}:")?;
        holds &= tell(&play(Choices::from_seed(seed), &arguments.switches, true), out)?;
    }
    Ok(holds)
}

/// Tells the story of one history.
fn tell(end: &End, out: &mut impl Write) -> io::Result<bool> {
    writeln!(out, "{}", end.story.join("\n"))?;
    match &end.violation {
        None => writeln!(out, "No promise is broken.")?,
        Some(violation) => writeln!(out, "BROKEN: {violation}")?,
    }
    Ok(end.violation.is_none())
}

fn many(seeds: Range<u64>, arguments: &Arguments, out: &mut impl Write) -> io::Result<bool> {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = arguments.threads.unwrap_or_else(cores).get();
    let started = Instant::now();
    let played = play_all(seeds, threads, &arguments.switches);
    let seconds = started.elapsed().as_secs_f64();
    if !arguments.brief {
        table("Met, of faults and of everything else:", &played.met, out)?;
        table("Checked:", &played.checks, out)?;
        // A few histories meet a part of it.
        let missing = if played.histories < 2_000 { Vec::new() } else { coverage::missing(&played) };
        for missing in missing {
            writeln!(out, "never met: {missing}")?;
        }
        for surprising in coverage::surprising(&played) {
            writeln!(out, "met, and not in the list: {surprising}")?;
        }
    }
    let histories = u32::try_from(played.histories).unwrap_or(u32::MAX);
    let rate = f64::from(histories) / seconds;
    writeln!(out, "{histories} histories in {seconds:.1} s on {threads} threads: {rate:.0} seeds a second")?;
    match &played.broken {
        None => writeln!(out, "No promise is broken.")?,
        Some((seed, end)) if arguments.brief => {
            writeln!(out, "BROKEN by seed {seed}: {}", end.violation.as_deref().unwrap_or_default())?;
        }
        Some((seed, end)) => writeln!(out, "BROKEN: {}", explain(*seed, end, &arguments.switches))?,
    }
    Ok(played.broken.is_none())
}

fn table<'c>(
    heading: &str,
    counts: impl IntoIterator<Item = (&'c Cow<'static, str>, &'c u64)>,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "{heading}")?;
    for (what, times) in counts {
        writeln!(out, "{times:>12}  {what}")?;
    }
    writeln!(out)
}
