"""Measures `seed run` of a large CSV against psql's `\\copy` of it, as ratios within one run, and its memory.

    .venv/bin/python bench/seeds.py [--rounds 5] [--rows 1000000]

Each round runs every contender once, in turn, into an empty table; a checkpoint stands before each. Memory is the
largest resident set of the program itself, without psql, which reads the file where it runs on this host.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from bed.clusters import DURABLE, FAST  # noqa: E402 - the paths above come first
from bed.gaps import Gap  # noqa: E402
from bed.servers import Bed, Server  # noqa: E402
from bed.session import BedSession  # noqa: E402

from migrations import machine, python, table  # noqa: E402
from nself_core.postgres.reach import find_psql  # noqa: E402

COLUMNS = "id bigint PRIMARY KEY, name text, price numeric, at timestamptz, note text"
DATABASE = "bench_seeds"


def write_rows(path, count):
    """A CSV of `count` rows, with quoted and empty values."""
    with path.open("w", encoding="utf-8") as file:
        file.write("id,name,price,at,note\n")
        for number in range(count):
            note = "" if number % 3 else f"a longer note, number {number}"
            day = number % 28 + 1
            file.write(f'{number},"name {number}, é",{number * 7 % 9999}.50,2024-01-{day:02}T00:00:00Z,"{note}"\n')


class Contenders:
    """The commands that load the file, each into its own table of one database."""

    def __init__(self, folder, server, rows):
        self.folder = folder
        self.server = server
        self.url = server.settings(DATABASE)["NSELF_DB_URL"]
        (folder / "seeds").mkdir()
        (folder / ".env.dev").write_text("", encoding="utf-8")
        self.file = folder / "seeds" / "big.csv"
        write_rows(self.file, rows)

    def commands(self):
        """name -> (arguments, environment)."""
        copy = f"\\copy big FROM '{self.file}' WITH (FORMAT csv, HEADER)"
        floor = [find_psql(), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", copy]
        ours = [python(), "-m", "nself_db", "seed", "run", "--quiet"]
        packages = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
        env = {"NSELF_DB_URL": self.url, "PYTHONPATH": packages}
        return {
            "floor": (floor, {}),
            "psql": (ours, {**env, "NSELF_DB_DRIVER": "psql"}),
            "psycopg": (ours, {**env, "NSELF_DB_DRIVER": "psycopg"}),
        }

    def run(self, argv, extra):
        """(seconds, largest resident set in MB) of one load into an empty table."""
        self.server.cluster.admin(f"DROP TABLE IF EXISTS big; CREATE TABLE big ({COLUMNS})", DATABASE)
        self.server.cluster.admin("CHECKPOINT")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NSELF", "PG"))}
        begun = time.perf_counter()
        child = subprocess.Popen(argv, cwd=self.folder, env={**kept, **extra}, stdout=subprocess.DEVNULL)
        megabytes = 0.0
        while child.poll() is None:
            megabytes = max(megabytes, resident_megabytes(child.pid))
            time.sleep(0.005)
        seconds = time.perf_counter() - begun
        if child.returncode:
            raise SystemExit(f"{argv[0]} ended with {child.returncode}")
        return seconds, megabytes


def resident_megabytes(pid):
    """The largest resident set so far of a process, by /proc; getrusage would count what it was forked from."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def measure(chosen, folder, bed, title, options):
    """All rounds on one server: their table and the memory of each contender."""
    cluster = bed.new_plain(options=("autovacuum=off", *options))
    memory: dict = {}
    try:
        server = Server("url-psql", cluster)
        server.create_database(DATABASE)
        contenders = Contenders(folder, server, chosen.rows)
        rounds = []
        for number in range(chosen.rounds):
            commands = contenders.commands()
            names = [*commands][number % 3 :] + [*commands][: number % 3]
            timed = {}
            for name in names:
                timed[name], megabytes = contenders.run(*commands[name])
                memory[name] = max(megabytes, memory.get(name, 0))
            rounds.append({"seed run": {name: timed[name] for name in commands}})
    finally:
        cluster.close()
    used = ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in memory.items() if name != "floor")
    heading = f"{title}, Postgres {cluster.version}, {chosen.rows} rows, {chosen.rounds} rounds"
    return table(rounds, heading) + f"\nLargest resident set: {used}.\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args()
    session = BedSession()
    bed = Bed(session)
    try:
        parts = [f"{machine()}."]
        for title, options in (("fsync off (CPU and round trips)", FAST), ("fsync on", DURABLE)):
            with tempfile.TemporaryDirectory() as name:
                parts.append(measure(chosen, Path(name), bed, title, options))
    except Gap as gap:
        raise SystemExit(f"not measured: {gap.what}: {gap.reason}") from None
    finally:
        bed.close()
        session.close()
    sys.stdout.write("\n".join(parts))


if __name__ == "__main__":
    main()
