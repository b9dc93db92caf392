"""Measures `migrate up`, `migrate status` and start-up against their floors and dbmate, as ratios within one run.

    .venv/bin/python bench/migrations.py [--rounds 5] [--count 1000] [--out bench/results/migrations.md]

Each round runs every contender once, in turn, on a fresh database of one server; a ratio is taken within its round, the
table shows medians (least to most). The floor of `up` is what a correct runner cannot go below: psql with the same
files, each in BEGIN, INSERT of the version, COMMIT. Contenders that this machine cannot run are named and left out.
"""

from __future__ import annotations

import argparse
import compileall
import datetime
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bed.clusters import DURABLE, FAST  # noqa: E402 - the paths above come first
from bed.gaps import Gap  # noqa: E402 - the paths above come first
from bed.servers import Bed  # noqa: E402
from bed.session import BedSession  # noqa: E402

from nself_core.postgres.reach import find_psql  # noqa: E402

FIRST = 20240101000000


class Workbench:
    """The folders, the server and the clock of one run."""

    def __init__(self, count, folder, server):
        self.count = count
        self.folder = folder
        self.server = server
        self.psql = find_psql()
        self.compiled = self._compile()
        self.project = self._project()
        self.floor = self._floor()
        self.dbmate_files = self._dbmate_files()

    def _compile(self):
        """Our code with its byte code beside it, as a packed program has it."""
        target = self.folder / "program"
        shutil.copytree(ROOT / "nself_core", target / "nself_core", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "nself_db.py", target)
        compileall.compile_dir(str(target), quiet=2)
        return target

    def _project(self):
        project = self.folder / "project"
        (project / "migrations").mkdir(parents=True)
        (project / ".env.dev").write_text("", encoding="utf-8")
        for number in range(self.count):
            (project / "migrations" / f"{FIRST + number}_m.sql").write_text(self._statement(number), encoding="utf-8")
        return project

    def _statement(self, number):
        return f"CREATE TABLE mig_{number} (id bigint PRIMARY KEY, v text);\n"

    def _floor(self):
        path = self.folder / "floor.sql"
        parts = ["CREATE TABLE applied (version bigint PRIMARY KEY);\n"]
        for number in range(self.count):
            parts.append(f"BEGIN;\n{self._statement(number)}INSERT INTO applied VALUES ({FIRST + number});\nCOMMIT;\n")
        path.write_text("".join(parts), encoding="utf-8")
        return path

    def _dbmate_files(self):
        folder = self.folder / "dbmate"
        folder.mkdir()
        for number in range(self.count):
            text = f"-- migrate:up\n{self._statement(number)}\n-- migrate:down\n"
            (folder / f"{FIRST + number}_m.sql").write_text(text, encoding="utf-8")
        return folder

    def ours(self, *words):
        """The arguments that run our compiled program."""
        start = f"import sys; sys.path.insert(0, {str(self.compiled)!r}); import nself_db; nself_db.start()"
        return [python(), "-I", "-S", "-c", start, *words]

    def floor_psql(self, database, *words):
        """psql on `database`, the program itself and not Debian's wrapper."""
        return [
            self.psql,
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.server.settings(database)["NSELF_DB_URL"],
            *words,
        ]

    def timed(self, argv, **extra):
        """Seconds of wall time of one run, which must end with 0."""
        kept = ("PYTHON", "NSELF", "PG")
        env = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        begun = time.perf_counter()
        done = subprocess.run(argv, cwd=self.project, env={**env, **extra}, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"{argv[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return seconds


def python():
    """The interpreter itself: a venv's link and a version manager's shim cost more to start."""
    return os.path.realpath(sys.executable)


def find_dbmate(folder):
    """dbmate's binary out of the npm package for this platform, or None."""
    if not shutil.which("npm"):
        return None
    subprocess.run(
        ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), "dbmate"],
        capture_output=True,
        check=False,
    )
    return next(iter((folder / "node_modules" / "@dbmate").glob("*/bin/dbmate")), None)


def round_up(bench, number, dbmate):
    """One round: every contender once, as {row: {contender: seconds}}."""
    names = {who: f"bench_{who}_{number}" for who in ("floor", "psql", "psycopg", "dbmate")}
    for name in names.values():
        bench.server.drop_database(name)
        bench.server.create_database(name)
    urls = {who: bench.server.settings(name)["NSELF_DB_URL"] for who, name in names.items()}
    rows = {"up": {}, "status": {}, "up again": {}, "start": {}}
    ups = {"floor": lambda: bench.timed(bench.floor_psql(names["floor"], "-f", str(bench.floor)))}
    for driver in ("psql", "psycopg"):
        ups[driver] = lambda driver=driver: bench.timed(
            ours_with(bench, driver, "migrate", "up", "-q"), NSELF_DB_URL=urls[driver], NSELF_DB_DRIVER=driver
        )
    if dbmate:
        words = [str(dbmate), "-u", urls["dbmate"] + "?sslmode=disable", "-d", str(bench.dbmate_files)]
        ups["dbmate"] = lambda: bench.timed([*words, "--no-dump-schema", "migrate"])
    # Whoever comes first finds the server busy with the databases that were just made: it is another each time.
    order = [*ups][number % len(ups) :] + [*ups][: number % len(ups)]
    timed = {}
    for who in order:
        bench.server.cluster.admin("CHECKPOINT")
        timed[who] = ups[who]()
    rows["up"] = {who: timed[who] for who in ups}
    for row, words, peer in (("status", ("migrate", "status"), "status"), ("up again", ("migrate", "up"), "migrate")):
        rows[row]["floor"] = bench.timed(bench.floor_psql(names["floor"], "-c", "select 1"))
        rows[row]["psql"] = bench.timed(bench.ours(*words), NSELF_DB_URL=urls["psql"], NSELF_DB_DRIVER="psql")
        if dbmate:
            rows[row]["dbmate"] = bench.timed(
                [
                    str(dbmate),
                    "-u",
                    urls["dbmate"] + "?sslmode=disable",
                    "-d",
                    str(bench.dbmate_files),
                    "--no-dump-schema",
                    peer,
                ]
            )
    rows["start"]["floor"] = bench.timed([python(), "-I", "-c", "pass"])
    rows["start"]["psql"] = bench.timed(bench.ours("--version"))
    for name in names.values():
        bench.server.drop_database(name)
    return rows


def ours_with(bench, driver, *words):
    """As Workbench.ours; psycopg is found where this program's own environment has it."""
    argv = bench.ours(*words)
    if driver == "psycopg":
        import psycopg

        packages = str(Path(psycopg.__file__).parents[1])
        argv[4] = argv[4].replace("import nself_db;", f"sys.path.append({packages!r}); import nself_db;")
    return argv


def table(rounds, title):
    """A Markdown table of medians and of ratios to the round's own floor."""
    lines = [
        f"### {title}",
        "",
        "| what | contender | median s | ratio to the floor (least to most) |",
        "|---|---|---|---|",
    ]
    for row in rounds[0]:
        for who in rounds[0][row]:
            seconds = [each[row][who] for each in rounds]
            ratios = [each[row][who] / each[row]["floor"] for each in rounds]
            lines.append(
                f"| {row} | {who} | {statistics.median(seconds):.3f} | {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) |"
            )
    return "\n".join(lines) + "\n"


def machine():
    """What was measured on."""
    return (
        f"{datetime.date.today().isoformat()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}"
    )


def measure(chosen, folder, bed, dbmate, title, *server_options):
    """All rounds on one server, and their table."""
    from bed.servers import Server

    # Autovacuum would start in one contender's time after another's thousand tables.
    cluster = bed.new_plain(options=("autovacuum=off", *server_options))
    try:
        bench = Workbench(chosen.count, folder, Server("url-psql", cluster))
        rounds = [round_up(bench, number, dbmate) for number in range(chosen.rounds)]
    finally:
        cluster.close()
    return table(rounds, f"{title}, Postgres {cluster.version}, {chosen.count} migrations, {chosen.rounds} rounds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    session = BedSession()
    bed = Bed(session)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            dbmate = find_dbmate(folder / "npm")
            parts = [
                f"{machine()}.",
                "" if dbmate else "dbmate could not be installed here and is left out.",
                measure(options, folder / "off", bed, dbmate, "fsync off (CPU and round trips)", *FAST),
                measure(options, folder / "on", bed, dbmate, "fsync on", *DURABLE),
            ]
    except Gap as gap:
        raise SystemExit(f"not measured: {gap.what}: {gap.reason}") from None
    finally:
        bed.close()
        session.close()
    text = "\n".join(part for part in parts if part)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
