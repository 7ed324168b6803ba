//! Where every choice of a history is drawn: from a seed, or from a script that is played again.

use std::{array, fmt, str::FromStr};

macro_rules! streams {
    ($($(#[doc = $doc:literal])+ $stream:ident = $name:literal;)+) => {
        /// What a choice is about. Each has choices of its own, so that one more or less does not shift the others: a
        /// history can be made shorter piece by piece.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Stream {
            $($(#[doc = $doc])+ $stream,)+
        }

        const NAMES: &[&str] = &[$($name),+];
    };
}

streams! {
    /// What the account is like, and how much goes wrong.
    Account = "account";
    /// The limits and policies of the sync.
    Sync = "sync";
    /// What happens between and around runs.
    Rounds = "rounds";
    /// How the rows of the source are edited.
    Source = "source";
    /// How the set-up is edited.
    Setup = "setup";
    /// Who goes on of several that can.
    Schedule = "schedule";
    /// When processes die.
    Deaths = "deaths";
    /// Which commits fail.
    Disk = "disk";
    /// What other people do.
    Others = "others";
    /// What happens to requests that read, or ask for tokens.
    Reads = "reads";
    /// What happens to updates.
    Updates = "updates";
    /// What happens to creations of contacts.
    Creations = "creations";
    /// What happens to the other writes: fields that are created, members of lists that are added.
    Writes = "writes";
}

const STREAMS: usize = NAMES.len();

/// The choices of a history, for each stream. Choice 0 is always the calm one: nothing happens, nothing goes wrong.
///
/// As text, three calm choices in a row are `0*3`, such as in `source 0*3 2 1, updates 0*40 7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script(pub(crate) [Vec<u32>; STREAMS]);

/// All choices of a history.
pub(crate) struct Choices([Draw; STREAMS]);

/// The choices of one stream.
pub(crate) struct Draw {
    state: u64,
    script: Option<Vec<u32>>,
    made: Vec<u32>,
}

impl Choices {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let state = |stream: usize| mixed(seed ^ mixed(stream as u64));
        Self(array::from_fn(|stream| Draw { state: state(stream), script: None, made: Vec::new() }))
    }

    /// The choices of a script, and calm ones after its end.
    pub(crate) fn from_script(script: Script) -> Self {
        Self(script.0.map(|script| Draw { state: 0, script: Some(script), made: Vec::new() }))
    }

    /// The choices about something.
    pub(crate) fn on(&mut self, stream: Stream) -> &mut Draw {
        &mut self.0[stream as usize]
    }

    /// What was chosen so far.
    pub(crate) fn made(&self) -> Script {
        Script(self.0.each_ref().map(|draw| draw.made.clone()))
    }
}

/// The finalizer of splitmix64.
fn mixed(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

impl Draw {
    fn next(&mut self) -> u64 {
        let drawn = mixed(self.state);
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        drawn
    }

    /// A number below `n`: 0 unless something happens, of which the probability is `p` in 1024.
    pub(crate) fn pick(&mut self, n: u32, p: u64) -> u32 {
        if n <= 1 {
            return 0;
        }
        let at = self.made.len();
        let taken = if p == 0 {
            0
        } else if let Some(script) = &self.script {
            script.get(at).map_or(0, |taken| taken % n)
        } else if self.next() % 1024 >= p {
            0
        } else {
            1 + u32::try_from(self.next() % u64::from(n - 1)).unwrap_or(0)
        };
        self.made.push(taken);
        taken
    }

    /// Any number below `n`, all alike.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.pick(n, 1024 - 1024 / u64::from(n.max(1))) as usize
    }

    /// Any of these; the first is the calm one.
    pub(crate) fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// Whether something happens that does once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.pick(2, 1024 / n.max(1)) == 1
    }
}

impl Script {
    /// How many choices are not calm, and how many there are up to the last of those.
    pub(crate) fn weight(&self) -> (usize, usize) {
        let not_calm = self.0.iter().flatten().filter(|taken| **taken > 0).count();
        let end = |stream: &Vec<u32>| stream.iter().rposition(|taken| *taken > 0).map_or(0, |last| last + 1);
        (not_calm, self.0.iter().map(end).sum())
    }

    /// The same without the calm choices at the end of each stream, which are made anyway.
    pub(crate) fn trimmed(mut self) -> Self {
        for stream in &mut self.0 {
            let end = stream.iter().rposition(|taken| *taken > 0).map_or(0, |last| last + 1);
            stream.truncate(end);
        }
        self
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (name, stream) in NAMES.iter().zip(&self.0).filter(|(_, stream)| !stream.is_empty()) {
            write!(f, "{comma}{name}")?;
            comma = ", ";
            for run in stream.chunk_by(|one, other| one == other) {
                match run {
                    [one] => write!(f, " {one}")?,
                    _ => write!(f, " {}*{}", run[0], run.len())?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        for part in text.split(',') {
            let mut words = part.split_whitespace();
            let Some(name) = words.next() else { continue };
            let stream = NAMES.iter().position(|known| *known == name);
            let stream = stream.ok_or_else(|| format!("`{name}` is none of {}", NAMES.join(", ")))?;
            for word in words {
                let (taken, times) = word.split_once('*').unwrap_or((word, "1"));
                let number = |text: &str| {
                    text.parse::<u32>().map_err(|_| format!("`{word}` is no choice, as `3` is, or `0*12`"))
                };
                let (taken, times) = (number(taken)?, number(times)?);
                script.0[stream].extend((0..times).map(|_| taken));
            }
        }
        Ok(script)
    }
}
