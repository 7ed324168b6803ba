//! Programs as processes of their own.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Mutex, PoisonError},
};

/// The program that `cargo test` builds beside this one.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());

    let tests = env::current_exe().expect("a test knows its own path");
    let profile = tests.ancestors().nth(2).expect("a test lies in `deps`, below the folder of its profile");
    let program = profile.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    if !program.exists() {
        let folder = profile.file_name().and_then(|folder| folder.to_str()).unwrap_or_default();
        let profile_name = if folder == "debug" { "test" } else { folder };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--examples", "--profile", profile_name])
            .arg("--target-dir")
            .arg(profile.parent().unwrap_or(profile))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(
            built.is_ok_and(|status| status.success()) && program.exists(),
            "there is no {}: run `cargo test`, or `cargo build --examples` with the profile `{profile_name}`",
            program.display()
        );
    }
    program
}

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("programs print text");
        Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn assert(self, status: i32) -> Self {
        let Self { out, err, .. } = &self;
        assert_eq!(self.status, Some(status), "\n--- stdout\n{out}\n--- stderr\n{err}");
        assert!(!err.contains("panicked"), "{err}");
        assert!(!crate::watch::is_told(err), "{err}");
        self
    }
}

/// A child that does not outlive its test.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it runs")
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child().try_wait().unwrap().is_some()
    }

    /// SIGKILL, while it was still at work.
    pub(crate) fn kill(mut self, what: &str) {
        assert!(!self.has_ended(), "{what}: the run was over before it could be killed");
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    #[cfg(unix)]
    pub(crate) fn interrupt(&mut self) {
        let pid = self.child().id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    pub(crate) fn end(mut self) -> Ended {
        self.0.take().expect("it runs").wait_with_output().unwrap().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).output().unwrap().into()
}

pub(crate) fn start(command: &mut Command) -> Running {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(Some(command.spawn().unwrap()))
}

/// The `sandbox` example, running.
pub(crate) struct SandboxProgram {
    pub(crate) running: Running,
    /// What it says before it serves, without the exports.
    pub(crate) said: Vec<String>,
    pub(crate) url: String,
    /// The credentials, as variables of the environment.
    pub(crate) access: BTreeMap<String, String>,
    _lines: BufReader<ChildStdout>,
}

impl SandboxProgram {
    pub(crate) fn start(arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        let mut running = start(Command::new(example("sandbox")).args(arguments));
        let mut lines = BufReader::new(running.child().stdout.take().unwrap());
        let (mut said, mut access) = (Vec::new(), BTreeMap::new());
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the sandbox ended: {said:?}");
            let line = line.trim_end();
            if line == "# Running until Ctrl-C" {
                break;
            }
            match line.strip_prefix("export ").and_then(|line| line.split_once('=')) {
                Some((name, value)) => _ = access.insert(name.to_owned(), value.to_owned()),
                None => said.push(line.to_owned()),
            }
        }
        let url = access.remove("EMARSYS_URL").expect("it says where it is");
        Self { running, said, url, access, _lines: lines }
    }
}
