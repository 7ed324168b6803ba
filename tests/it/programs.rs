//! The example programs, each as a process of its own, against a sandbox in this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use reverse_etl::{
    Activation, Mapping, PlanOptions, Record, RedbStore, Result,
    emarsys::{
        Client, ContactsDestination, Credentials, FieldId, ListId,
        sandbox::{Endpoint, Fault, Sandbox, SandboxBuilder},
    },
    host::{Host, SystemHost},
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{Running, SandboxProgram, example, run, start};

const LIST: &str = "Customers";
const HEADER: &str = "E-mail,First name,City,Loyalty level";
const MAPPING: [&str; 8] =
    ["--key", "E-mail", "--map", "First name=1", "--map", "City=City", "--custom", "Loyalty level"];
const INSERT: [&str; 3] = ["--insert", "--list", LIST];
/// What was sent is over soon, so that a run after a crash need not wait for long.
const SOON: [&str; 2] = ["--late", "1"];

/// A row of the file.
#[derive(Clone)]
struct Person {
    email: String,
    first_name: String,
    city: String,
    level: String,
}

fn people(count: usize) -> Vec<Person> {
    let person = |index: usize| Person {
        email: format!("person{index}@shop.test"),
        first_name: format!("Name {index}"),
        city: ["Wien", "Graz", "Linz"][index % 3].to_owned(),
        level: ["gold", "silver"][index % 2].to_owned(),
    };
    (0..count).map(person).collect()
}

/// Every third of the people is a contact before the first run.
fn is_known(index: usize) -> bool {
    index.is_multiple_of(3)
}

/// An account, a file of customers, and a place for the state.
struct World {
    sandbox: Sandbox,
    folder: TempDir,
    list: ListId,
    /// What the sandbox runs on.
    runtime: Runtime,
}

impl World {
    fn new(people: &[Person]) -> Self {
        crate::watch::install();
        Self::of(Sandbox::builder(), people)
    }

    fn of(builder: SandboxBuilder, people: &[Person]) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let sandbox = runtime.block_on(builder.start()).unwrap();
        let list = sandbox.add_list(LIST);
        let known = people.iter().enumerate().filter(|(index, _)| is_known(*index));
        for email in known.map(|(_, person)| person.email.as_str()).chain(["other@elsewhere.test"]) {
            sandbox.add_contact([
                (FieldId::EMAIL, json!(email)),
                (FieldId::FIRST_NAME, json!("from before")),
                (FieldId::LAST_NAME, json!("kept")),
            ]);
        }
        let world = Self { sandbox, folder: tempfile::tempdir().unwrap(), list, runtime };
        world.write(people);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, people: &[Person]) {
        let line = |person: &Person| {
            let Person { email, first_name, city, level } = person;
            format!("{email},{first_name},{city},{level}\n")
        };
        let lines: String = people.iter().map(line).collect();
        self.write_text(&format!("{HEADER}\n{lines}"));
    }

    fn write_text(&self, text: &str) {
        fs::write(self.path("customers.csv"), text).unwrap();
    }

    fn state(&self) -> Option<Vec<u8>> {
        fs::read(self.path("customers.state")).ok()
    }

    /// `sync_csv` for the file and the state, with the credentials of v3 and without a mapping.
    fn bare(&self) -> Command {
        self.bare_at(&self.path("customers.state"), self.sandbox.url())
    }

    fn bare_at(&self, state: &Path, url: &str) -> Command {
        let mut command = Command::new(example("sync_csv"));
        for name in ["EMARSYS_USERNAME", "EMARSYS_SECRET"] {
            command.env_remove(name);
        }
        command
            .env("EMARSYS_CLIENT_ID", self.sandbox.client_id())
            .env("EMARSYS_CLIENT_SECRET", self.sandbox.client_secret())
            .arg("--csv")
            .arg(self.path("customers.csv"))
            .arg("--state")
            .arg(state)
            .args(["--base-url", url]);
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare();
        command.args(MAPPING).args(args);
        command
    }

    /// The same with the credentials of v2.
    fn command_v2(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command
            .env_remove("EMARSYS_CLIENT_ID")
            .env_remove("EMARSYS_CLIENT_SECRET")
            .env("EMARSYS_USERNAME", self.sandbox.username())
            .env("EMARSYS_SECRET", self.sandbox.wsse_secret());
        command
    }

    /// Every contact is as the file says; those who were there before are in no list, all others in the one of insert
    /// mode; nobody is there twice, and what is not mapped is as it was.
    #[track_caller]
    fn assert_equals(&self, people: &[Person], inserts: bool) {
        let level = self.sandbox.field("Loyalty level").expect("the custom field was created").id();
        let mut contacts = BTreeMap::new();
        for contact in self.sandbox.contacts() {
            let email = contact.value(FieldId::EMAIL).as_str().unwrap().to_owned();
            assert!(contacts.insert(email, contact).is_none(), "a contact is there twice");
        }
        let other = contacts.remove("other@elsewhere.test").expect("a contact is never deleted");
        assert_eq!(
            (other.value(FieldId::FIRST_NAME), other.lists()),
            (&json!("from before"), &BTreeSet::new())
        );
        for (index, person) in people.iter().enumerate() {
            let contact = contacts.remove(&person.email);
            if !inserts && !is_known(index) {
                assert!(contact.is_none(), "row {index} was created");
                continue;
            }
            let contact = contact.unwrap_or_else(|| panic!("row {index} is missing"));
            let found = [
                contact.value(FieldId::FIRST_NAME),
                contact.value(FieldId::CITY),
                contact.value(level),
                contact.value(FieldId::LAST_NAME),
            ];
            let last_name = if is_known(index) { json!("kept") } else { Json::Null };
            let wanted = [json!(person.first_name), json!(person.city), json!(person.level), last_name];
            assert_eq!(found.map(Clone::clone), wanted, "row {index}");
            let lists = if is_known(index) { BTreeSet::new() } else { BTreeSet::from([self.list]) };
            assert_eq!(*contact.lists(), lists, "lists of row {index}");
        }
        assert!(contacts.is_empty(), "{} contacts are not in the file", contacts.len());
    }

    /// One more run has nothing to write.
    #[track_caller]
    fn assert_settled(&self, command: &mut Command) {
        self.sandbox.clear_requests();
        run(command).assert(0);
        assert_eq!(self.sandbox.write_requests(), 0);
    }

    /// Waits for the `count`th write request; whether it came before the program ended.
    fn meets_writes(&self, running: &mut Running, count: u64) -> bool {
        until(|| self.sandbox.write_requests() >= count || running.has_ended());
        self.sandbox.write_requests() >= count
    }
}

/// Waits for something that is to happen soon.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn sync_makes_the_account_equal_to_the_file(
    command: fn(&World, &[&str]) -> Command,
    inserts: bool,
    name: &str,
) {
    let mut people = people(1_200);
    let world = World::new(&people);
    let args = if inserts { &INSERT[..] } else { &[] };
    let dry = [args, &["--dry-run"]].concat();

    let ended = run(&mut command(&world, &dry)).assert(0);
    assert!(ended.out.contains("plan for ") && ended.out.contains("field `Loyalty level`"), "{}", ended.out);
    assert_eq!(
        (world.state(), world.sandbox.write_requests()),
        (None, 0),
        "{name}: a dry run writes nothing"
    );

    // Rows without a match are no reason for another status than 0.
    let ended = run(&mut command(&world, args)).assert(0);
    assert!(ended.out.contains("report of ") && ended.err.is_empty(), "{}{}", ended.out, ended.err);
    assert_eq!(ended.out.contains("no match"), !inserts, "{}", ended.out);
    world.assert_equals(&people, inserts);
    world.assert_settled(&mut command(&world, args));

    "Bregenz".clone_into(&mut people[0].city);
    "platinum".clone_into(&mut people[1].level);
    world.write(&people);
    let state = world.state();
    world.sandbox.clear_requests();
    run(&mut command(&world, &dry)).assert(0);
    assert_eq!(world.sandbox.write_requests(), 0);
    assert!(state.is_some() && world.state() == state, "{name}: a dry run leaves the state as it is");
    run(&mut command(&world, args)).assert(0);
    world.assert_equals(&people, inserts);

    world.write(&[people.as_slice(), &[Person { email: "nobody".to_owned(), ..people[0].clone() }]].concat());
    world.sandbox.clear_requests();
    run(&mut command(&world, &dry)).assert(1);
    let ended = run(&mut command(&world, args)).assert(1);
    assert!(ended.out.contains("row 1201: `E-mail`"), "{}", ended.out);
    assert_eq!(world.sandbox.write_requests(), 0);
    world.assert_equals(&people, inserts);
}

#[test]
fn sync_in_insert_mode_makes_the_account_equal_to_the_file() {
    sync_makes_the_account_equal_to_the_file(World::command, true, "v3");
    sync_makes_the_account_equal_to_the_file(World::command_v2, true, "v2");
}

#[test]
fn sync_without_insert_mode_updates_those_who_exist_and_nobody_else() {
    sync_makes_the_account_equal_to_the_file(World::command, false, "v3");
    sync_makes_the_account_equal_to_the_file(World::command_v2, false, "v2");
}

#[test]
fn list_may_be_given_by_its_id() {
    let people = people(3);
    let world = World::new(&people);
    run(&mut world.command(&["--insert", "--list", &world.list.to_string()])).assert(0);
    world.assert_equals(&people, true);
}

/// Requests are answered slowly and each after another time, so that there is something to be killed in the middle of.
fn slow(sandbox: &Sandbox) {
    sandbox.fail(Fault::delay(millis(100)).on(Endpoint::CreateField));
    for step in 1..=4 {
        sandbox.fail(Fault::delay(millis(150 * step)).on(Endpoint::UpdateContacts));
    }
    for endpoint in [Endpoint::UpdateContacts, Endpoint::CreateContacts, Endpoint::AddToList] {
        sandbox.fail(Fault::delay(millis(900)).on(endpoint).always());
    }
}

/// Starts a slow run and kills it `pause` after the `count`th write request came in.
fn kill_at_write(world: &World, command: &mut Command, count: u64, pause: Duration) {
    let what = format!("write request {count} and {pause:?}");
    world.sandbox.clear_faults();
    world.sandbox.clear_requests();
    slow(&world.sandbox);
    let mut running = start(command);
    assert!(world.meets_writes(&mut running, count), "{what}: {}", running.end().out);
    thread::sleep(pause);
    running.kill(&what);
    world.sandbox.clear_faults();
}

/// Does the same with each of several things at once, since most of it is waiting.
fn at_once<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for item in items {
            scope.spawn(|| work(item));
        }
    });
}

#[test]
fn killed_run_is_made_good_by_the_next_one() {
    let people = people(3_300);
    // One field, four updates, three inserts.
    let points: Vec<(u64, u64)> =
        vec![(1, 0), (2, 0), (3, 0), (5, 0), (5, 120), (5, 200), (5, 350), (6, 0), (7, 50), (8, 0), (8, 200)];
    at_once(&points, |&(count, pause)| {
        let world = World::new(&people);
        let command = || world.command(&[&INSERT[..], &SOON].concat());
        kill_at_write(&world, &mut command(), count, millis(pause));
        run(&mut command()).assert(0);
        world.assert_equals(&people, true);
        world.assert_settled(&mut command());
    });
}

#[test]
fn run_that_is_killed_twice_is_made_good_by_the_next_one() {
    let people = people(3_300);
    at_once(&[(3, 1), (5, 2), (7, 1), (8, 1)], |&(first, second)| {
        let world = World::new(&people);
        let command = || world.command(&[&INSERT[..], &SOON].concat());
        kill_at_write(&world, &mut command(), first, millis(30));
        kill_at_write(&world, &mut command(), second, millis(30));
        run(&mut command()).assert(0);
        world.assert_equals(&people, true);
        world.assert_settled(&mut command());
    });
}

#[test]
fn run_that_is_killed_in_its_first_commit_leaves_no_state_or_a_whole_one() {
    let people = people(30);
    let has_file = |world: &World, is_it: fn(&str) -> bool| {
        let names = fs::read_dir(world.folder.path()).unwrap();
        names.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_it))
    };
    let moments: [fn(&str) -> bool; 2] =
        [|name| name.starts_with(".state-"), |name| name == "customers.state"];
    at_once(&moments, |is_it| {
        let world = World::new(&people);
        slow(&world.sandbox);
        let command = || world.command(&[&INSERT[..], &SOON].concat());
        let running = start(&mut command());
        while !has_file(&world, *is_it) && !has_file(&world, |name| name == "customers.state") {
            thread::yield_now();
        }
        running.kill("first commit");
        world.sandbox.clear_faults();
        run(&mut command()).assert(0);
        world.assert_equals(&people, true);
        world.assert_settled(&mut command());
    });
}

#[test]
fn value_that_goes_back_after_a_kill_is_sent_again_also_if_the_lost_request_takes_effect_late() {
    let before = people(2_000);
    let mut after = before.clone();
    for person in &mut after {
        "Bregenz".clone_into(&mut person.city);
    }
    at_once(&[false, true], |&is_late| {
        let world = World::new(&before);
        let command = || world.command(&[&INSERT[..], &SOON].concat());
        run(&mut command()).assert(0);

        world.write(&after);
        world.sandbox.clear_requests();
        if is_late {
            world.sandbox.fail(Fault::apply_late(millis(900)).on(Endpoint::UpdateContacts));
        }
        world.sandbox.fail(Fault::delay(millis(5_000)).on(Endpoint::UpdateContacts).always());
        let mut running = start(&mut command());
        assert!(world.meets_writes(&mut running, 2));
        running.kill("two updates");
        world.sandbox.clear_faults();

        world.write(&before);
        let ended = run(&mut command()).assert(0);
        assert!(ended.err.contains(" rows wait for "), "it says why it waits: {}", ended.err);
        world.assert_equals(&before, true);
        world.assert_settled(&mut command());
        world.assert_equals(&before, true);
    });
}

#[test]
fn contacts_that_a_lost_request_creates_after_a_kill_get_into_the_list_also_if_they_left_the_file() {
    let people = people(2_000);
    at_once(&[2_000, 100], |&left| {
        let world = World::new(&people);
        let command = || world.command(&[&INSERT[..], &SOON].concat());
        world.sandbox.fail(Fault::apply_late(millis(900)).on(Endpoint::CreateContacts));
        world.sandbox.fail(Fault::delay(millis(5_000)).on(Endpoint::CreateContacts).always());
        let mut running = start(&mut command());
        until(|| world.sandbox.requests_to(Endpoint::CreateContacts) >= 2 || running.has_ended());
        running.kill("two inserts");
        world.sandbox.clear_faults();

        world.write(&people[..left]);
        run(&mut command()).assert(0);
        // Those of both requests were created, whether or not they are still in the file.
        world.assert_equals(&people, true);
        world.assert_settled(&mut command());
    });
}

#[test]
fn killed_run_without_insert_mode_is_made_good_and_creates_nobody() {
    let people = people(3_300);
    at_once(&[(3, 0), (5, 200)], |&(count, pause)| {
        let world = World::new(&people);
        kill_at_write(&world, &mut world.command(&SOON), count, millis(pause));
        run(&mut world.command(&SOON)).assert(0);
        world.assert_equals(&people, false);
        world.assert_settled(&mut world.command(&SOON));
    });
}

#[cfg(unix)]
#[test]
fn interrupted_run_waits_for_what_is_under_way_and_the_next_one_does_the_rest() {
    let people = people(3_300);
    let world = World::new(&people);
    world.sandbox.fail(Fault::delay(millis(700)).on(Endpoint::UpdateContacts).always());
    let mut running = start(&mut world.command(&INSERT));
    assert!(world.meets_writes(&mut running, 2));
    running.interrupt();
    let ended = running.end().assert(1);
    assert!(ended.err.starts_with("stopping: "), "{}", ended.err);
    assert!(ended.out.contains("stopped before the end of the plan"), "{}", ended.out);
    assert!(!ended.out.contains("unknown"), "what was under way was waited for: {}", ended.out);
    assert_eq!(world.sandbox.requests_to(Endpoint::CreateContacts), 0, "nothing was begun any more");

    world.sandbox.clear_faults();
    run(&mut world.command(&INSERT)).assert(0);
    world.assert_equals(&people, true);
    world.assert_settled(&mut world.command(&INSERT));
}

#[cfg(unix)]
#[test]
fn second_interrupt_ends_the_program_at_once() {
    let people = people(30);
    let world = World::new(&people);
    world.sandbox.fail(Fault::delay(millis(30_000)).on(Endpoint::UpdateContacts));
    let mut running = start(&mut world.command(&SOON));
    assert!(world.meets_writes(&mut running, 2));
    running.interrupt();
    let mut first = [0; 9];
    running.child().stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"stopping:");
    let begun = Instant::now();
    while !running.has_ended() {
        running.interrupt();
        thread::sleep(millis(20));
    }
    assert!(begun.elapsed() < millis(1_500), "it ended at once");
    running.end().assert(1);
    run(&mut world.command(&SOON)).assert(0);
    world.assert_equals(&people, false);
}

#[test]
fn second_run_at_once_is_told_who_holds_the_state_and_does_not_disturb_the_first() {
    let people = people(30);
    let world = World::new(&people);
    world.sandbox.fail(Fault::delay(millis(4_000)).on(Endpoint::UpdateContacts));
    let mut first = start(&mut world.command(&INSERT));
    assert!(world.meets_writes(&mut first, 2));
    let second = run(&mut world.command(&INSERT)).assert(2);
    let holder = format!("another process (process {}) has held the state ", first.child().id());
    assert!(second.err.contains(&holder) && second.err.contains("customers.state"), "{}", second.err);
    assert!(!first.has_ended());
    assert_eq!(world.sandbox.write_requests(), 2);
    first.end().assert(0);
    world.assert_equals(&people, true);
    world.assert_settled(&mut world.command(&INSERT));
}

#[test]
fn output_that_nobody_reads_does_not_stop_the_run() {
    let people = people(30);
    let world = World::new(&people);
    let mut running = start(&mut world.command(&INSERT));
    drop(running.child().stdout.take());
    let ended = running.end().assert(0);
    assert_eq!(ended.err, "");
    world.assert_equals(&people, true);
}

/// The program refuses to begin: status 2, one sentence that holds `says`, and nothing written anywhere.
#[track_caller]
fn assert_refused(world: &World, name: &str, command: &mut Command, says: &[&str]) {
    let state = world.state();
    world.sandbox.clear_requests();
    let ended = run(command);
    assert_eq!(ended.status, Some(2), "{name}\n--- stdout\n{}\n--- stderr\n{}", ended.out, ended.err);
    assert_eq!(world.sandbox.write_requests(), 0, "{name}");
    assert!(world.state() == state, "{name}: the state is as it was");
    let sentence = ended.err.trim_end();
    assert!(sentence.starts_with("error: "), "{name}: {sentence}");
    for part in says {
        assert!(sentence.contains(part), "{name}: {part:?} is not in {sentence}");
    }
    // What clap says of arguments ends with a hint on its own lines.
    assert!(!sentence.contains('\n') || sentence.contains("try '--help'"), "{name}: {sentence}");
    let secrets = [world.sandbox.client_secret(), world.sandbox.wsse_secret(), "wrong secret", "@"];
    let debug = ["panicked", "Error {", "Os {", "Kind(", "Some(", "kind:", "\\\"", "  "];
    for part in secrets.iter().chain(if sentence.contains('\n') { &debug[..3] } else { &debug }) {
        assert!(
            !ended.err.contains(part) && !ended.out.contains(secrets[0]),
            "{name}: {part:?} in {sentence}"
        );
    }
}

#[test]
fn wrong_credentials_are_refused() {
    let world = World::new(&people(3));
    let refused = |name: &str, command: &mut Command, says: &[&str]| {
        assert_refused(&world, name, command, says);
    };
    refused(
        "secret of v3",
        world.command(&[]).env("EMARSYS_CLIENT_SECRET", "wrong secret"),
        &["client secret"],
    );
    refused(
        "secret of v2",
        world.command_v2(&[]).env("EMARSYS_SECRET", "wrong secret"),
        &["HTTP 401", "check user name and secret"],
    );
    let mut none = world.command(&[]);
    none.env_remove("EMARSYS_CLIENT_ID").env_remove("EMARSYS_CLIENT_SECRET");
    refused("none", &mut none, &["no credentials", "EMARSYS_CLIENT_ID", "EMARSYS_SECRET"]);
    refused("an empty one", world.command(&[]).env("EMARSYS_CLIENT_SECRET", ""), &["no credentials"]);
}

#[test]
fn address_that_cannot_be_used_is_refused() {
    let world = World::new(&people(3));
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let refused = |address: &str, says: &[&str]| {
        let mut command = world.bare_at(&world.path("customers.state"), address);
        assert_refused(&world, address, command.args(MAPPING), says);
    };
    refused("http://shop.test", &["base URL", "https"]);
    refused("shop", &["base URL"]);
    refused(
        &format!("http://127.0.0.1:{closed}"),
        &["POST token: could not connect", "check the base URL", "refused"],
    );
}

#[test]
fn list_that_is_not_one_is_refused() {
    let world = World::new(&people(3));
    let first = world.sandbox.add_list("Twice");
    let second = world.sandbox.add_list("Twice");
    let refused = |args: &[&str], says: &[&str]| {
        assert_refused(&world, &args.join(" "), &mut world.command(args), says);
    };
    refused(&["--insert", "--list", "Nobody"], &["`Nobody`", "create it"]);
    refused(&["--insert", "--list", "99999"], &["99999", "check the id"]);
    refused(&["--insert", "--list", "Twice"], &["`Twice`", &first.to_string(), &second.to_string()]);
    refused(&["--insert"], &["--list"]);
    refused(&["--list", LIST], &["--insert"]);
}

#[test]
fn mapping_that_does_not_fit_is_refused() {
    let world = World::new(&people(3));
    let refused = |args: &[&str], says: &[&str]| {
        assert_refused(&world, &args.join(" "), world.bare().args(args), says);
    };
    refused(&["--key", "E-mail", "--map", "City=Town"], &["`Town`"]);
    refused(&["--key", "Mail", "--map", "City=City"], &["`Mail`", "4 names", "check the mapping"]);
    refused(&["--key", "e mail", "--map", "City=City"], &["`e mail`", "it has `E-mail`"]);
    refused(&["--key", "E-mail", "--map", "Town=City"], &["`Town`", "4 names", "check the mapping"]);
    refused(&["--key", "E-mail", "--custom", "Shoe size"], &["`Shoe size`"]);
    refused(&["--key", "E-mail", "--map", "City=City", "--map", "City=City"], &["`City`", "twice"]);
    refused(&["--key", "E-mail", "--map", "City=City", "--map", "First name=11"], &["`City`", "`11`"]);
    refused(&["--key", "E-mail", "--map", "City"], &["City", "COLUMN=FIELD"]);
    refused(&["--key", "E-mail", "--map", "=City"], &["=City", "COLUMN=FIELD"]);
    refused(&["--key", "E-mail", "--map", "City=3"], &["`3`"]);
    refused(&["--map", "City=City"], &["--key"]);
}

#[test]
fn file_that_cannot_be_read_is_refused() {
    let world = World::new(&people(3));
    let refused = |text: &str, says: &[&str]| {
        world.write_text(text);
        assert_refused(&world, text, &mut world.command(&INSERT), says);
    };
    let row = "ada@shop.test,Ada,Wien,gold\n";
    refused(&format!("{HEADER}\n{row}{row}ada@shop.test,Ada,Wien,gold,more\n{row}"), &["row 3", "line: 4"]);
    refused(&format!("{HEADER}\n{row}ada@shop.test,Ada\n"), &["row 2"]);
    refused(&format!("{HEADER}\n"), &["0 rows", "check the source"]);
    refused("", &["customers.csv", "empty"]);
    refused("E-mail;First name;City\nada@shop.test;Ada;Wien\n", &["`E-mail`", "a single one", "parted"]);

    fs::write(
        world.path("customers.csv"),
        [HEADER.as_bytes(), b"\nada@shop.test,A\xE4,Wien,gold\n"].concat(),
    )
    .unwrap();
    assert_refused(&world, "Latin 1", &mut world.command(&[]), &["row 1", "UTF-8"]);
    fs::remove_file(world.path("customers.csv")).unwrap();
    assert_refused(&world, "no file", &mut world.command(&[]), &["customers.csv", "check the path"]);
    fs::create_dir(world.path("customers.csv")).unwrap();
    assert_refused(&world, "a folder", &mut world.command(&[]), &["customers.csv", "check the path"]);
}

#[test]
fn dry_run_of_a_plan_that_is_refused_is_refused() {
    let world = World::new(&people(3));
    world.write_text(&format!("{HEADER}\n"));
    assert_refused(&world, "dry run", &mut world.command(&["--dry-run"]), &["0 rows", "check the source"]);
}

#[test]
fn state_of_something_else_is_refused() {
    let people = people(3);
    let world = World::new(&people);
    let state = world.path("customers.state");
    run(&mut world.command(&[])).assert(0);

    let account = json!({ "replyCode": 0, "replyText": "OK", "data": { "id": 9999 } }).to_string();
    world.sandbox.fail(Fault::answer(200, account).on(Endpoint::Settings));
    assert_refused(
        &world,
        "account",
        &mut world.command(&[]),
        &["emarsys/5120/", "emarsys/9999/", "state of its own"],
    );

    let half = { world.state().unwrap() };
    fs::write(&state, &half[..half.len() / 2]).unwrap();
    assert_refused(
        &world,
        "half a state",
        &mut world.command(&[]),
        &["customers.state", "cut", "move it away"],
    );
    for content in ["", "E-mail,City\n"] {
        fs::write(&state, content).unwrap();
        assert_refused(&world, "no state", &mut world.command(&[]), &["customers.state", "move it away"]);
    }
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    assert_refused(&world, "a folder", &mut world.command(&[]), &["customers.state", "not a file"]);
    let missing = world.path("missing").join("customers.state");
    let mut command = world.bare_at(&missing, world.sandbox.url());
    assert_refused(
        &world,
        "missing folder",
        command.args(MAPPING),
        &["customers.state", "create the directory"],
    );
}

#[test]
fn state_of_another_sync_is_refused() {
    let people = people(3);
    let world = World::new(&people);
    let credentials = Credentials::oauth2(world.sandbox.client_id(), world.sandbox.client_secret());
    let client = Client::builder(credentials).base_url(world.sandbox.url()).build().unwrap();
    let store = RedbStore::open(world.path("customers.state")).unwrap();
    let sync = Activation::new(
        Mapping::new("E-mail").map("First name", FieldId::FIRST_NAME),
        ContactsDestination::new(client),
        store,
    )
    .options(PlanOptions::default().sync("newsletter"));
    let rows = vec![Record::new().with("E-mail", people[0].email.as_str()).with("First name", "Ada")];
    world.runtime.block_on(sync.run(&rows)).unwrap();
    drop(sync);
    assert_refused(&world, "sync", &mut world.command(&[]), &["sync newsletter", "state of its own"]);
}

#[test]
fn rejects_that_cannot_be_written_are_refused() {
    let world = World::new(&people(3));
    let with_rejects = |path: &Path| {
        let mut command = world.command(&[]);
        command.arg("--rejects").arg(path);
        command
    };
    let missing = world.path("missing").join("rejects.csv");
    assert_refused(&world, "missing folder", &mut with_rejects(&missing), &["rejects.csv", "written"]);
    assert_refused(&world, "a folder", &mut with_rejects(world.folder.path()), &["written"]);

    run(&mut world.command(&[])).assert(0);
    let customers = fs::read(world.path("customers.csv")).unwrap();
    for name in ["customers.csv", "customers.state"] {
        assert_refused(&world, name, &mut with_rejects(&world.path(name)), &[name, "of their own"]);
    }
    assert_eq!(fs::read(world.path("customers.csv")).unwrap(), customers);
}

#[test]
fn rejects_name_row_kind_code_column_field_and_reason_and_nobody() {
    let mut people = people(8);
    let world = World::new(&people);
    let twin = &people[4].email;
    for _ in 0..2 {
        world.sandbox.add_contact([(FieldId::EMAIL, json!(twin))]);
    }
    people[1].email = "secretname".to_owned();
    people[2].first_name = "secretname ".repeat(10);
    people[6] = Person { city: "Secretcity".to_owned(), ..people[3].clone() };
    world.write(&people);
    let rejects = world.path("rejects.csv");
    fs::write(&rejects, "what an earlier run left, and anybody may read").unwrap();
    let command = |args: &[&str]| {
        let mut command = world.command(args);
        command.arg("--rejects").arg(&rejects);
        command
    };
    // Row number, kind, code, column and field; reasons by what they must name.
    let assert_rejects = |expected: &[[&str; 6]]| {
        let text = fs::read_to_string(&rejects).unwrap();
        assert!(!text.contains('@') && !text.to_lowercase().contains("secret"), "{text}");
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&rejects).unwrap().permissions()) & 0o777,
            0o600
        );
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(csv.headers().unwrap(), vec!["row", "kind", "code", "column", "field", "reason"]);
        let mut found: Vec<_> = csv.records().map(Result::unwrap).collect();
        found.sort_by_key(|record| record[0].parse::<u64>().unwrap());
        assert_eq!(found.len(), expected.len(), "{text}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.iter().take(5).collect::<Vec<_>>(), expected[..5], "{text}");
            assert!(found[5].contains(expected[5]), "{} in {text}", expected[5]);
        }
    };
    let invalid = ["2", "invalid", "", "E-mail", "", "e-mail"];
    let too_long = ["3", "invalid", "", "First name", "1", "60"];
    let duplicate = ["7", "duplicate", "", "", "", "row 4"];
    let rejected = ["5", "rejected", "2010", "", "", "merge"];

    run(&mut command(&["--dry-run"])).assert(1);
    assert_rejects(&[invalid, too_long, duplicate]);
    assert_eq!(world.sandbox.write_requests(), 0);

    let ended = run(&mut command(&[])).assert(1);
    assert_rejects(&[invalid, too_long, rejected, duplicate]);
    assert!(!ended.out.contains('@') && !ended.out.to_lowercase().contains("secret"), "{}", ended.out);

    "Bregenz".clone_into(&mut people[0].city);
    world.write(&people);
    world.sandbox.fail(Fault::lose_answer().on(Endpoint::UpdateContacts));
    run(&mut command(&[])).assert(1);
    let unknown = ["1", "unknown", "", "", "", "answer"];
    assert_rejects(&[unknown, invalid, too_long, duplicate]);
}

#[test]
fn run_that_has_to_stop_reports_how_far_it_came() {
    let people = people(1_500);
    let world = World::new(&people);
    world.sandbox.fail(Fault::status(403).on(Endpoint::CreateContacts).always());
    let ended = run(&mut world.command(&INSERT)).assert(1);
    assert!(ended.out.contains("applied             500"), "{}", ended.out);
    assert!(ended.out.contains("stopped before the end of the plan"), "{}", ended.out);
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    assert!(ended.err.starts_with("error: ") && ended.err.contains("403"), "{}", ended.err);

    world.sandbox.clear_faults();
    run(&mut world.command(&INSERT)).assert(0);
    world.assert_equals(&people, true);
    world.assert_settled(&mut world.command(&INSERT));
}

/// The system's clock, set back by some seconds.
#[derive(Debug)]
struct Behind(Arc<dyn Host>, AtomicU64);

#[async_trait]
impl Host for Behind {
    fn wall(&self) -> SystemTime {
        self.0.wall() - Duration::from_secs(self.1.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    async fn sleep(&self, pause: Duration) {
        self.0.sleep(pause).await;
    }

    fn random(&self, bytes: &mut [u8]) -> Result<()> {
        self.0.random(bytes)
    }
}

#[test]
fn run_that_meets_the_request_limit_waits_for_its_window_to_end() {
    let people = people(30);
    let clock = Arc::new(Behind(SystemHost::shared(), AtomicU64::new(57)));
    let world = World::of(Sandbox::builder().host(Arc::<Behind>::clone(&clock)), &people);
    // Used up 57 s ago.
    world.sandbox.exhaust_limit();
    clock.1.store(0, Ordering::SeqCst);
    let begun = Instant::now();
    run(&mut world.command(&INSERT)).assert(0);
    assert!(begun.elapsed() > millis(1_000), "the limit was met");
    world.assert_equals(&people, true);
}

#[test]
fn quickstart_shows_what_it_says() {
    let begun = Instant::now();
    let ended = run(&mut Command::new(example("quickstart"))).assert(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(ended.err, "");
    let parts: Vec<&str> = ended.out.split("\n\n").filter(|part| part.contains("plan for ")).collect();
    assert!(parts.len() >= 4, "{}", ended.out);
    for number in 1..=4 {
        assert!(ended.out.contains(&format!("\n{number}. ")), "{}", ended.out);
    }
    assert!(ended.out.matches("report of ").count() >= 4, "{}", ended.out);
    let second = ended.out.split("\n2. ").nth(1).and_then(|rest| rest.split("\n3. ").next()).unwrap();
    assert!(second.contains("Write requests: 0\n"), "{second}");
}

#[cfg(unix)]
#[test]
fn sandbox_program_serves_the_contacts_of_a_file_until_it_is_interrupted() {
    let people = people(6);
    // Only its folder and files are used here.
    let world = World::new(&people);
    let contacts = world.path("contacts.csv");
    fs::write(&contacts, format!("3,First Name\n{},from before\n", people[0].email)).unwrap();
    let options = ["--port", "0", "--rate-limit", "77", "--contacts"];
    let mut program = SandboxProgram::start(options.iter().map(AsRef::as_ref).chain([contacts.as_os_str()]));
    assert!(program.said.iter().any(|line| line.starts_with("# 1 contacts from ")), "{:?}", program.said);
    let (url, access) = (&program.url, &program.access);
    assert_eq!(access.len(), 4, "two credentials for each version");

    let mut raw = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    raw.write_all(b"GET /api/v3/settings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).unwrap();
    assert!(answer.to_lowercase().contains("x-ratelimit-limit: 77\r\n"), "{answer}");

    let sync = || {
        let mut command = world.bare_at(&world.path("customers.state"), url);
        command.args(MAPPING).envs(access);
        command
    };
    let ended = run(&mut sync()).assert(0);
    assert!(ended.out.contains("applied               1\n"), "{}", ended.out);
    assert!(ended.out.contains("no match              5 "), "{}", ended.out);
    let ended = run(&mut sync()).assert(0);
    assert!(ended.out.contains("batches: 0"), "{}", ended.out);
    assert_eq!(world.sandbox.requests().len(), 0, "it was the other one");

    program.running.interrupt();
    program.running.end().assert(0);
}

#[test]
fn sandbox_program_refuses_a_file_that_it_cannot_load() {
    let folder = tempfile::tempdir().unwrap();
    let contacts = folder.path().join("contacts.csv");
    fs::write(&contacts, "3,Shoe size\n").unwrap();
    let ended = run(Command::new(example("sandbox")).arg("--contacts").arg(&contacts)).assert(1);
    assert!(
        ended.err.starts_with("error: ")
            && ended.err.contains("contacts.csv")
            && ended.err.contains("Shoe size")
            && ended.out.is_empty(),
        "{}{}",
        ended.out,
        ended.err
    );
}
