"""Measures backups and restores against pg_dump, pg_restore and aws s3 cp alone, as ratios within one run, and memory.

    .venv/bin/python bench/backup.py [--rounds 5] [--megabytes 1000] [--parts local,restore,remote,levels,memory]

Each round runs every contender once, in turn, on one server; a ratio is taken within its round. The floor of a backup
is the same pg_dump redirected to a file; of a restore, createdb, pg_restore with as many jobs, ANALYZE; of a remote
backup, the slower of the dump and of `aws s3 cp` of its file. Memory is the largest resident set of our program alone.
A run's processor time is that of the program, of pg_dump and its like, and of the server's processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from bed.clusters import DURABLE  # noqa: E402 - the paths above come first
from bed.gaps import Gap  # noqa: E402
from bed.object_store import object_store  # noqa: E402
from bed.servers import Bed, Server  # noqa: E402
from bed.session import BedSession  # noqa: E402

from migrations import machine, python  # noqa: E402
from nself_core.postgres.reach import find_psql  # noqa: E402
from nself_core.postgres.toolchain import find_clients  # noqa: E402
from seeds import resident_megabytes  # noqa: E402

Run = namedtuple("Run", "seconds processor megabytes")
Run.__doc__ = """What one run took.

Seconds of wall time, seconds of processor time (of it, its client programs and the server), and the largest resident
set of the program itself in MB.
"""

DATABASE = "bench_backup"
PARTS = ("local", "restore", "remote", "levels", "memory")
TABLES = 4
ROW_BYTES = 260  # of a row with its part of the indexes
JOBS = 2
LEVELS = ("0", "1", "6", "9", "zstd", "zstd:9", "lz4")
WITH_ZSTD = "container-17"  # Debian's; the embedded server is built without

SQL_TABLE = """
CREATE TABLE part_{number}
    (id bigint PRIMARY KEY, account int, at timestamptz, amount numeric(12,2), name text, body text);
INSERT INTO part_{number}
SELECT i, i % 1000, '2024-01-01'::timestamptz + i * interval '1 second', (i % 9973 * 7919 % 100000) / 100.0,
       'name ' || i % 977, md5(i::text) || ' ' || repeat('lorem ipsum ' || i % 13 || ' ', 6)
FROM generate_series(1, {rows}) AS i;
CREATE INDEX ON part_{number} (account);
"""


class Workbench:
    """The folder, the server and its database, and the commands that are measured."""

    def __init__(self, folder, server, megabytes):
        self.folder = folder
        self.server = server
        self.megabytes = megabytes
        self.backups = folder / ".nself-backups"
        (folder / ".env.dev").write_text("", encoding="utf-8")
        server.lend(folder)
        server.create_database(DATABASE)
        (row,) = server.admin("SELECT pg_read_file('postmaster.pid') AS text")
        self.postmaster = int(row["text"].split()[0])
        self.fill(megabytes)

    def fill(self, megabytes):
        """Put tables of so many megabytes, indexes included, into the database."""
        rows = max(megabytes * 1_000_000 // TABLES // ROW_BYTES, 1)
        for number in range(TABLES):
            for statement in SQL_TABLE.format(number=number, rows=rows).split(";\n"):
                if statement.strip():
                    self.server.admin(statement, DATABASE)
        self.server.admin("VACUUM ANALYZE", DATABASE)
        self.server.admin("CHECKPOINT")

    @property
    def size(self):
        """The database's size in megabytes."""
        (row,) = self.server.admin(f"SELECT pg_database_size('{DATABASE}') AS bytes")
        return row["bytes"] / 1e6

    @property
    def url(self):
        return self.server.settings(DATABASE)["NSELF_DB_URL"]

    def client(self, program):
        """The host's client program that nself-db would take for this server, quoted for a shell."""
        return shlex.quote(find_clients(program, self.server.version)[0])

    def ours(self, *words):
        """(arguments, environment) of our program."""
        packages = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
        return [python(), "-m", "nself_db", *words, "--quiet"], {
            "PYTHONPATH": packages,
            **self.server.settings(DATABASE),
        }

    def shell(self, script):
        """(arguments, environment) of a shell script."""
        return ["sh", "-ec", script], {}

    def timed(self, command):
        """The Run of one command, which must end with 0. What was written before is on disk first."""
        argv, extra = command
        os.sync()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NSELF", "PG"))}
        before = self._processor()
        begun = time.perf_counter()
        child = subprocess.Popen(argv, cwd=self.folder, env={**kept, **extra}, stdout=subprocess.DEVNULL)
        megabytes = 0.0
        while child.poll() is None:
            megabytes = max(megabytes, resident_megabytes(child.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - begun
        if child.returncode:
            raise SystemExit(f"{argv} ended with {child.returncode}")
        time.sleep(0.2)  # the last of the server's processes ends
        return Run(seconds, self._processor() - before, megabytes)

    def _processor(self):
        """Seconds that our children and the server's processes have used, as far as they have ended."""
        ours = resource.getrusage(resource.RUSAGE_CHILDREN)
        fields = Path(f"/proc/{self.postmaster}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return ours.ru_utime + ours.ru_stime + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def dump(self, target, compress="6"):
        """The floor of a backup."""
        options = f"--format=c --compress={compress} --no-password"
        return self.shell(f"{self.client('pg_dump')} {options} --dbname={shlex.quote(self.url)} > {target}")

    def newest(self):
        """The newest backup that we took."""
        return max(self.backups.glob("*.dump"), key=os.path.getmtime)

    def clean(self):
        """Drop the databases that restores have put aside."""
        self.timed(self.ours("restore", "--clean", "--force"))

    def clear(self):
        """Remove what was written."""
        shutil.rmtree(self.backups, ignore_errors=True)
        for path in self.folder.glob("floor*"):
            path.unlink()


def rounds_of(bench, count, contenders):
    """Run `contenders`, name -> a function that gives a command, each once a round, in turn: a dict of Runs each."""
    found = []
    for number in range(count):
        order = [*contenders][number % len(contenders) :] + [*contenders][: number % len(contenders)]
        timed = {name: bench.timed(contenders[name]()) for name in order}
        found.append({name: timed[name] for name in contenders})
        sys.stderr.write(f"{ {name: round(run.seconds, 2) for name, run in found[-1].items()} }\n")
    return found


def table(rounds, title, kinds=2):
    """A Markdown table: medians, ratios to the floor of the same round, and those of processor time.

    The last are what a busy machine disturbs least; with `kinds` 1 they are left out.
    """
    heads = ("median s", "processor s")[:kinds]
    lines = [
        f"### {title}",
        "",
        f"| contender | {' | '.join(f'{head} | ratio (least to most)' for head in heads)} |",
        "|---" * (1 + 2 * kinds) + "|",
    ]
    for who in rounds[0]:
        columns = [_compared([(each[who][n], each["floor"][n]) for each in rounds]) for n in range(kinds)]
        lines.append(f"| {who} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def _compared(pairs):
    ratios = [mine / floor for mine, floor in pairs]
    middle = statistics.median(mine for mine, _ in pairs)
    return f"{middle:.2f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def measure_local(bench, rounds):
    """`backup` against its pg_dump."""
    found = rounds_of(
        bench, rounds, {"floor": lambda: bench.dump("floor.dump"), "nself-db": lambda: bench.ours("backup")}
    )
    bench.clear()
    return table(found, bench_title(bench, "Local backup", rounds))


def measure_restore(bench, rounds):
    """`restore` against what it cannot do without, and the parts that make the difference."""
    bench.timed(bench.ours("backup"))
    file = bench.newest()
    url = shlex.quote(bench.url.rpartition("/")[0] + "/floor")
    psql = shlex.quote(find_psql())
    maintenance = f"--maintenance-db={shlex.quote(bench.url)}"
    floor = (
        f"{bench.client('createdb')} {maintenance} floor; "
        f"{bench.client('pg_restore')} --exit-on-error --jobs={JOBS} --dbname={url} {file}; "
        f"{psql} -X -q -d {url} -c ANALYZE"
    )

    def fresh_floor():
        bench.server.drop_database("floor")
        return bench.shell(floor)

    def ours(*words):
        bench.clean()
        return bench.ours("restore", "--file", str(file), f"--jobs={JOBS}", "--force", *words)

    found = rounds_of(
        bench,
        rounds,
        {
            "floor": fresh_floor,
            "nself-db --no-safety-backup": lambda: ours("--no-safety-backup"),
            "nself-db, with its safety backup": ours,
            "of it: backup verify": lambda: bench.ours("backup", "verify", str(file)),
        },
    )
    bench.server.drop_database("floor")
    bench.clean()
    bench.clear()
    return table(found, bench_title(bench, f"Restore with --jobs {JOBS}", rounds))


def measure_remote(bench, rounds, session):
    """`backup --remote` against the slower of its dump and of an upload."""
    help_text = subprocess.run(
        [python(), "-m", "nself_db", "backup", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    if "--remote" not in help_text:
        return "Remote: not measured, for this nself-db has no `backup --remote`.\n"
    store = object_store(session)
    try:
        keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        aws = [find_aws(session), "s3", "--endpoint-url", store.endpoint, "--region", store.region]
        environ = {**keys, "AWS_EC2_METADATA_DISABLED": "true"}
        storage = {
            "STORAGE_ENDPOINT": store.endpoint,
            "STORAGE_BUCKET": store.bucket,
            "STORAGE_REGION": store.region,
            "STORAGE_ACCESS_KEY": store.access_key,
            "STORAGE_SECRET_KEY": store.secret_key,
        }
        subprocess.run([*aws, "mb", f"s3://{store.bucket}"], env={**os.environ, **environ}, capture_output=True)
        bench.timed(bench.dump("floor-upload.dump"))
        upload = [*aws, "cp", "--only-show-errors", "floor-upload.dump", f"s3://{store.bucket}/peer.dump"]

        def ours(*words):
            argv, env = bench.ours("backup", "--remote", *words)
            return argv, {**env, **storage}

        found = rounds_of(
            bench,
            rounds,
            {
                "dump alone": lambda: bench.dump("floor.dump"),
                "aws s3 cp alone": lambda: (upload, environ),
                "nself-db --remote --no-local": lambda: ours("--no-local"),
                "nself-db --remote": ours,
            },
        )
    finally:
        store.close()
        bench.clear()
    rows = [{"floor": max(row["dump alone"], row["aws s3 cp alone"]), **row} for row in found]  # by seconds
    largest = max(row["nself-db --remote --no-local"].megabytes for row in found)
    title = bench_title(bench, "Remote backup, to OpenStack Swift on this machine", rounds)
    return f"{table(rows, title)}\nLargest resident set of --remote --no-local: {largest:.0f} MB.\n"


def find_aws(session):
    """The aws of an environment of its own in the cache, made once. Raises Gap where it cannot be."""
    place = session.cache / "awscli"
    if not (place / "bin" / "aws").exists():
        for argv in (
            [sys.executable, "-m", "venv", str(place)],
            [str(place / "bin" / "pip"), "install", "-q", "awscli"],
        ):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Gap("aws s3 cp", done.stderr.strip().splitlines()[-1])
    return str(place / "bin" / "aws")


def measure_levels(bench, rounds):
    """What each level of compression costs, pg_dump in the server's container."""
    found = []
    sizes: dict = {}
    for number in range(rounds):
        order = [*LEVELS][number % len(LEVELS) :] + [*LEVELS][: number % len(LEVELS)]
        timed = {}
        for level in order:
            timed[level] = bench.timed(bench.ours("backup", "--compress", level))
            sizes[level] = bench.newest().stat().st_size / 1e6
            bench.clear()
        found.append({"floor": timed["6"], **{f"--compress {level}": timed[level] for level in LEVELS}})
    title = bench_title(bench, "Levels of compression, the floor is level 6, pg_dump in a container", rounds)
    text = table(found, title, 1)  # what runs in a container is no child of ours
    told = ", ".join(f"{level} {size:.0f}" for level, size in sizes.items())
    return text + f"\nMegabytes of the dump: {told}.\n"


def measure_memory(bench, megabytes):
    """The largest resident set of a backup, a verification and a restore of so much data."""
    backup = bench.timed(bench.ours("backup")).megabytes
    file = bench.newest()
    verify = bench.timed(bench.ours("backup", "verify", str(file))).megabytes
    words = ("--file", str(file), "--force", "--no-safety-backup", f"--jobs={JOBS}")
    restore = bench.timed(bench.ours("restore", *words)).megabytes
    bench.clean()
    told = f"backup {backup:.0f} MB, backup verify {verify:.0f} MB, restore {restore:.0f} MB"
    text = f"Largest resident set at {bench.size:.0f} MB ({file.stat().st_size / 1e6:.0f} MB dumped): {told}.\n"
    bench.clear()
    return text


def bench_title(bench, what, rounds):
    """A table's heading."""
    return f"{what}, Postgres {bench.server.version}, database of {bench.size:.0f} MB, {rounds} rounds"


def measure(chosen, session, bed):
    """The chosen parts, as texts."""
    plain = [part for part in chosen.parts if part != "levels"]
    if plain:
        cluster = bed.new_plain(options=("autovacuum=off", "max_wal_size=8GB", *DURABLE))
        try:
            with tempfile.TemporaryDirectory() as name:
                bench = Workbench(Path(name), Server("url-psql", cluster), chosen.megabytes)
                for part in plain:
                    yield {
                        "local": lambda: measure_local(bench, chosen.rounds),
                        "restore": lambda: measure_restore(bench, chosen.rounds),
                        "remote": lambda: measure_remote(bench, chosen.rounds, session),
                        "memory": lambda: measure_memory(bench, chosen.megabytes),
                    }[part]()
        finally:
            cluster.close()
    if "levels" in chosen.parts:
        with tempfile.TemporaryDirectory() as name:
            bench = Workbench(Path(name), bed.server(WITH_ZSTD), chosen.megabytes)
            yield measure_levels(bench, chosen.rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    chosen = parser.parse_args()
    session = BedSession()
    bed = Bed(session)
    sys.stdout.write(f"{machine()}.\n\n")
    try:
        for text in measure(chosen, session, bed):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    except Gap as gap:
        raise SystemExit(f"not measured: {gap.what}: {gap.reason}") from None
    finally:
        bed.close()
        session.close()


if __name__ == "__main__":
    main()
