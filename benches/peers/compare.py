#!/usr/bin/env python3
"""Finds the same changes with DuckDB and with this crate, in turn, and compares time and memory.

    cargo run --release --features arrow --example make_parquet -- --rows 10000000 target/people
    cargo build --release --features arrow --example plan_parquet
    pip install duckdb
    python3 benches/peers/compare.py target/people --plan target/release/examples/plan_parquet

Every program runs as a process of its own, on the same files and with as many threads, and finds them in memory. Its time is that
of the whole process, from its start to its end; its answer is checked against `expected.json`. What DuckDB finds it writes to a
file: for each row what became of it, its key, which columns changed, and their new values. With `--save` both sides also bring
their state up to date: this crate by delivering its plan, batch by batch, DuckDB by writing the state anew, for which the start
of a second process does not count. Where the file itself is the state, there is nothing to do.

The state of this crate stays in the folder, as `state`: remove it when the files are made anew.

The ways of DuckDB differ in what is kept of the rows of before:

    values        the file itself, all values
    values-table  the same in a table of a database
    hashes        a file with a hash of each value, and of the key
    hashes-table  the same in a table of a database
    row-hash      a hash of each row as well; values are compared only of rows whose hash differs
"""

import argparse
import errno
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

WAYS = ["values", "values-table", "hashes", "hashes-table", "row-hash"]
KEY = "email"


class Way:
    """One way to keep the rows of before, and to compare others with them."""

    def __init__(self, name, folder, threads):
        import duckdb

        self.name, self.folder = name, folder
        self.is_hashed, self.is_table = name != "values" and name != "values-table", name.endswith("table")
        self.database = duckdb.connect(str(folder / f"{name}.duckdb") if self.is_table else ":memory:")
        self.database.execute(f"set threads = {threads}")
        # The order of rows is of no interest, and to keep it costs memory.
        self.database.execute("set preserve_insertion_order = false")
        self.current = f"read_parquet('{folder}/current.parquet')"
        described = self.database.execute(f"describe select * from {self.current}").fetchall()
        self.columns = [column[0] for column in described if column[0] != KEY]

    def kept(self, value):
        """What is kept of a value."""
        return f"hash({value})" if self.is_hashed else value

    def row_hash(self, of):
        return f"hash({', '.join(f'{of}.{column}' for column in self.columns)})"

    def state(self):
        """Where the rows of before are."""
        if self.is_table:
            return "state"
        return f"read_parquet('{self.folder}/{'prior' if self.name == 'values' else self.name + '.state'}.parquet')"

    def save(self, rows, to):
        """Keeps `rows` for the next comparison."""
        if self.name == "values":
            return  # the file itself is what is kept
        kept = [f"{self.kept('r.' + column)} as {column}" for column in [KEY, *self.columns]]
        if self.name == "row-hash":
            kept.append(f"{self.row_hash('r')} as row_hash")
        query = f"select {', '.join(kept)} from read_parquet('{self.folder}/{rows}.parquet') r"
        if self.is_table:
            self.database.execute(f"create or replace table {to} as {query}")
            self.database.execute("checkpoint")
        else:
            self.database.execute(f"copy ({query}) to '{self.folder}/{self.name}.{to}.parquet' (format parquet)")

    def compare(self):
        """Finds what changed, writes it to a file, and counts it."""
        prior, current = self.state(), self.current
        joined = f"p.{KEY} = {self.kept('c.' + KEY)}"
        if self.name == "row-hash":
            self.database.execute(f"""
                create temp table differing as
                select c.{KEY} as changed_key, p.{KEY} as known_key
                from (select {KEY}, row_hash from {prior}) p
                full join (select {KEY}, {self.row_hash('r')} as row_hash from {current} r) c on {joined}
                where p.row_hash is distinct from c.row_hash""")
            source = f"""differing d
                left join {current} c on c.{KEY} = d.changed_key
                left join {prior} p on p.{KEY} = d.known_key"""
        else:
            source = f"{prior} p full join {current} c on {joined}"
        bits = [
            f"((p.{column} is distinct from {self.kept('c.' + column)})::int << {bit})"
            for bit, column in enumerate(self.columns)
        ]
        kind = f"case when p.{KEY} is null then 'added' when c.{KEY} is null then 'removed' else 'changed' end"
        self.database.execute(f"""
            create temp table changes as
            select * from (
                select {kind} as kind, coalesce(c.{KEY}, p.{KEY}::varchar) as key, {' | '.join(bits)} as changed,
                    {', '.join('c.' + column for column in self.columns)}
                from {source})
            where kind <> 'changed' or changed <> 0""")
        values = [
            f"case when changed & {1 << bit} <> 0 then {column} end as {column}"
            for bit, column in enumerate(self.columns)
        ]
        answer = f"{self.folder}/{self.name}.changes.parquet"
        self.database.execute(
            f"copy (select kind, key, changed, {', '.join(values)} from changes) to '{answer}' (format parquet)"
        )
        counted = self.database.execute(
            "select kind, count(*), sum(bit_count(changed)) from changes group by kind"
        ).fetchall()
        counts = {kind: (rows, cells) for kind, rows, cells in counted}
        return {
            "inserted": counts["added"][0],
            "updated": counts["changed"][0],
            "cells": int(counts["changed"][1]),
            "removed": counts["removed"][0],
        }


def step(arguments):
    """One step of one way, in this process: the parent measures its memory."""
    way = Way(arguments.step[0], arguments.folder, arguments.threads)
    started = time.perf_counter()
    counts = None
    if arguments.step[1] == "prepare":
        way.save("prior", "state")
    elif arguments.step[1] == "save":
        way.save("current", "saved")
    else:
        counts = way.compare()
    print(json.dumps({"seconds": time.perf_counter() - started, "counts": counts}))


def pieces(file):
    """What a file has, piece by piece, each with its place. Gaps, of which a state has some, are left out."""
    with open(file, "rb", buffering=0) as opened:
        at = 0
        while True:
            try:
                at = os.lseek(opened.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return  # there is nothing behind
            end = os.lseek(opened.fileno(), at, os.SEEK_HOLE)
            os.lseek(opened.fileno(), at, os.SEEK_SET)
            while at < end:
                piece = opened.read(min(end - at, 1 << 20))
                if not piece:
                    raise EOFError(f"{file} became shorter while it was read")
                yield at, piece
                at += len(piece)


def bring_into_memory(file):
    for _ in pieces(file):
        pass


def copy(file, to):
    with open(to, "wb") as opened:
        for at, piece in pieces(file):
            opened.seek(at)
            opened.write(piece)
        opened.truncate(file.stat().st_size)


def measured(command, files=()):
    """What a process printed, its seconds, and the most memory it had, in MB. It finds `files` in memory."""
    # What the one before has written is not to be written while this one runs.
    os.sync()
    for file in files:
        bring_into_memory(file)
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        sys.exit(f"failed: {' '.join(str(part) for part in command)}")
    return output, seconds, usage.ru_maxrss / 1024


class Rival:
    def __init__(self, way, arguments):
        self.name = f"DuckDB {way}"
        self.command = [
            sys.executable, __file__, arguments.folder, "--threads", arguments.threads, "--step", way
        ]
        measured([*self.command, "prepare"])
        state = "prior.parquet" if way == "values" else f"{way}.duckdb" if way.endswith("table") else f"{way}.state.parquet"
        self.files = [arguments.folder / "current.parquet", arguments.folder / state]

    def compare(self):
        output, seconds, memory = measured([*self.command, "compare"], self.files)
        return json.loads(output)["counts"], seconds, memory

    def save(self):
        output, _, _ = measured([*self.command, "save"], self.files)
        return json.loads(output)["seconds"]


class Ours:
    name = "reverse-etl"

    def __init__(self, arguments):
        self.state = arguments.folder / "state"
        self.command = [arguments.plan, "--key", KEY, "--threads", arguments.threads]
        self.current = ["--parquet", arguments.folder / "current.parquet"]
        if not self.state.exists():
            prior = ["--parquet", arguments.folder / "prior.parquet"]
            measured([*self.command, "--state", self.state, *prior, "--commit"])

    def told(self, output):
        lines = [line.split() for line in output.splitlines()]
        number = {" ".join(line[:2]): int(line[2]) for line in lines if line[1] in ("rows", "cells")}
        return {
            "inserted": number["added rows"],
            "updated": number["changed rows"],
            "cells": number["changed cells"],
            "removed": number["removed rows"],
        }

    def compare(self):
        command = [*self.command, "--state", self.state, *self.current]
        output, seconds, memory = measured(command, [self.current[1], self.state])
        return self.told(output), seconds, memory

    def save(self):
        """Plans and delivers, from a copy of the state, and says what both took."""
        copied = self.state.with_name("state.copy")
        copy(self.state, copied)
        command = [*self.command, "--state", copied, *self.current, "--commit"]
        _, seconds, _ = measured(command, [self.current[1], copied])
        copied.unlink()
        return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what make_parquet made")
    parser.add_argument("--plan", type=Path, help="the program of the example plan_parquet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--save", action="store_true", help="bring the state up to date as well")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        return step(arguments)
    if not arguments.plan:
        parser.error("--plan is missing")
    if not (arguments.folder / "expected.json").is_file():
        parser.error(f"{arguments.folder} has no files to compare: make them with the example `make_parquet`")
    expected = json.loads((arguments.folder / "expected.json").read_text())
    expected.pop("rows")
    ours, rivals = Ours(arguments), [Rival(way, arguments) for way in arguments.ways]

    seconds, memory, saved = {}, {}, {}
    programs = [ours, *rivals]
    for number in range(1, arguments.rounds + 1):
        # Each round another one is first: whoever comes after a program of 5 GB finds the machine as that left it.
        turned = number % len(programs)
        for program in programs[turned:] + programs[:turned]:
            counts, taken, megabytes = program.compare()
            if counts != expected:
                sys.exit(f"{program.name} found {counts}, and it is {expected}; is a state of other files in the folder?")
            seconds.setdefault(program.name, []).append(taken)
            memory.setdefault(program.name, []).append(megabytes)
            if arguments.save:
                saving = program.save()
                saved.setdefault(program.name, []).append(saving if program is ours else taken + saving)
            print(f"round {number}: {program.name} {taken:.2f} s", file=sys.stderr)

    def row(name):
        ratios = [mine / other for mine, other in zip(seconds[ours.name], seconds[name])]
        share = [mine / other for mine, other in zip(memory[ours.name], memory[name])]
        cells = [f"{statistics.median(seconds[name]):8.2f} s", f"{statistics.median(memory[name]):8.0f} MB"]
        cells += [f"{statistics.median(ratios):10.2f}", f"{statistics.median(share):12.2f}"]
        if arguments.save:
            ratios = [mine / other for mine, other in zip(saved[ours.name], saved[name])]
            cells += [f"{statistics.median(saved[name]):10.2f} s", f"{statistics.median(ratios):10.2f}"]
        return "  ".join(cells)

    header = ["  compared", "     memory", "ours : its", "ours : its MB"]
    header += ["   with save", "ours : its"] if arguments.save else []
    print(f"{'median of ' + str(arguments.rounds):<20}  {'  '.join(header)}")
    for name in sorted(seconds, key=lambda name: statistics.median(seconds[name])):
        print(f"{name:<20}  {row(name)}")


if __name__ == "__main__":
    main()
