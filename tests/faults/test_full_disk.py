"""A disk runs full in the midst: exit 2 and words that say so, whole migrations, and a next run once there is room.

Full is the server's data, its write-ahead log (which stops the whole server), or the disk of the host where the
program writes files. The disks are memory disks of a few megabytes, filled by a file that can be taken away.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from bed.images import DATA_FOLDER
from bed.local_processes import give_away, wait_until
from bed.projects import Project
from bed.servers import Server

from .conftest import SMALL_LOG
from .watch import PATIENT, WAIT
from .workload import check_complete, make_pieces, read_state, rows, write_pieces

PIECES = make_pieces(9)
PAGE = 4096
# 40 megabytes of rows that no write-ahead log holds, so that the table's own file is what finds no room.
BIG = "CREATE UNLOGGED TABLE big AS SELECT i, repeat('x', 1000) AS filling FROM generate_series(1, 40000) i;\n"
FILLER = f"{DATA_FOLDER}/filler"


def check_words(outcome):
    assert outcome.code == 2, repr(outcome)
    told = outcome.err + outcome.out
    assert "No space left on device" in told or "disk is full" in told, told
    assert "Traceback" not in outcome.err


def fill(folder, leave=0):
    """Fill the disk of `folder` but for `leave` bytes; returns the file that does it."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * PAGE)
    os.truncate(filler, filler.stat().st_size - leave)
    return filler


# --- the server's data

@pytest.fixture
def full_server(small_server):
    """`small_server` with room for about 8 megabytes more."""
    small_server.admin("CHECKPOINT")
    small_server.run("sh", "-c", f"free=$(df -k --output=avail {DATA_FOLDER} | tail -n 1); "
                     f"head -c $(((free - 8192) * 1024)) /dev/zero > {FILLER}")  # fmt: skip
    yield small_server
    small_server.run("rm", "-f", FILLER)


@pytest.mark.parametrize("way", ["container", "url-psql", "url-psycopg"])
def test_no_room_for_a_transactional_file(new_project, full_server, way):
    project = new_project(Server(way, full_server))
    write_pieces(project, PIECES)
    project.migration("10_big", "INSERT INTO log VALUES (10, 1);\n" + BIG + "INSERT INTO log VALUES (10, 2);\n")
    project.migration("11_after", "INSERT INTO log VALUES (11, 1);\n")
    outcome = project.run("migrate", "up")
    check_words(outcome)
    assert "migrations/10_big.sql:2:1" in outcome.err
    check_complete(PIECES, read_state(project.database))
    full_server.run("rm", FILLER)
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT number, step FROM log WHERE number > 9 ORDER BY 1, 2") == [(10, 1), (10, 2), (11, 1)]
    assert rows(project, "SELECT count(*) FROM big") == [(40000,)]


@pytest.mark.parametrize("way", ["container", "url-psql", "url-psycopg"])
def test_no_room_for_a_statement_outside_a_transaction(new_project, full_server, way):
    project = new_project(Server(way, full_server))
    write_pieces(project, PIECES)
    project.migration("10_big", "-- nself:no-transaction\nINSERT INTO log VALUES (10, 1);\n" + BIG +
                      "INSERT INTO log VALUES (10, 2);\n")  # fmt: skip
    outcome = project.run("migrate", "up")
    check_words(outcome)
    assert "statement 2 of 3 failed, 1 of 3 are done" in outcome.err
    told = rows(project, "SELECT dirty, statements_done, started FROM nself_db.migrations "
                "JOIN hdb_catalog.schema_migrations USING (version) WHERE version = 10")  # fmt: skip
    assert told == [(True, 1, None)]
    full_server.run("rm", FILLER)
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT number, step FROM log WHERE number > 9 ORDER BY 1, 2") == [(10, 1), (10, 2)]


def test_no_room_for_an_index_built_concurrently(new_project, small_server):
    project = new_project(Server("container", small_server))
    project.migration("1_big", BIG)
    project.run("migrate", "up").ok()
    # 320 bytes a row that do not compress: more than there is room for.
    words = " || ".join(f"md5((i * 10 + {number})::text)" for number in range(10))
    project.migration("2_index", f"CREATE INDEX CONCURRENTLY i ON big (({words}));\n")
    small_server.admin("CHECKPOINT")
    small_server.run("sh", "-c", f"free=$(df -k --output=avail {DATA_FOLDER} | tail -n 1); "
                     f"head -c $(((free - 8192) * 1024)) /dev/zero > {FILLER}")  # fmt: skip
    try:
        outcome = project.run("migrate", "up")
    finally:
        small_server.run("rm", FILLER)
    check_words(outcome)
    assert "index i is left INVALID" in outcome.err
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


# --- the write-ahead log: with no room for it the whole server stops

@pytest.fixture
def small_log(new_plain, small_disk):
    """(cluster, folder): a server of this host whose write-ahead log lies on a memory disk of its own."""
    cluster = new_plain(options=SMALL_LOG)
    folder = small_disk(64)
    data = Path(cluster.admin("SHOW data_directory")[0]["data_directory"])
    cluster.stop()
    for entry in (data / "pg_wal").iterdir():
        subprocess.run(["cp", "-a", entry, folder], check=True)
    (data / "pg_wal").rename(data / "pg_wal.before")
    give_away(folder)
    (data / "pg_wal").symlink_to(folder)
    cluster.start()
    return cluster, folder


@pytest.mark.parametrize("driver", ["psql", "psycopg"])
def test_no_room_for_the_write_ahead_log(small_log, new_project, driver):
    cluster, folder = small_log
    project = new_project(Server(f"url-{driver}", cluster))
    write_pieces(project, PIECES)
    project.migration("10_big", PATIENT + "INSERT INTO log VALUES (10, 1);\n" + BIG.replace("UNLOGGED ", ""))
    project.run("migrate", "up", "--to", "9").ok()
    filler = fill(folder)
    outcome = project.run("migrate", "up")
    filler.unlink()
    check_words(outcome)
    # It recovers by itself, or its recovery found no room either and it has ended.
    wait_until(lambda: cluster.answers() or cluster.logs().endswith("database system is shut down\n"), WAIT)
    cluster.ensure_running()
    check_complete(PIECES, read_state(project.database))
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT number, step FROM log WHERE number > 9") == [(10, 1)]
    assert rows(project, "SELECT count(*) FROM big") == [(40000,)]


# --- the host's disk

@pytest.fixture
def small_project(small_disk, plain_server, make_database, run):
    """A Project on a memory disk of one megabyte."""
    return Project(small_disk(1) / "project", make_database(plain_server), run)


@pytest.mark.parametrize("pages", [0, 1])
@pytest.mark.parametrize("sql", [None, "CREATE TABLE t (id int)"])
def test_migrate_create_leaves_no_half_of_its_two_files(small_project, pages, sql):
    """With room for one page the first file can be written and the second cannot."""
    filler = fill(small_project.root.parent, pages * PAGE)
    options = ["--sql", sql] if sql else []
    outcome = small_project.run("migrate", "create", "later", *options)
    assert os.listdir(small_project.root / "migrations") == []
    check_words(outcome)
    filler.unlink()
    small_project.run("migrate", "create", "later", *options).ok()
    assert len(os.listdir(small_project.root / "migrations")) == 2


CSV = "CREATE TABLE t (a int, b text);\nCOPY t FROM stdin (FORMAT csv);\n" + "1,one\n" * 2000 + "\\.\n"


def test_no_room_for_what_psql_is_handed_in_a_file(new_project, small_disk):
    project = new_project("plain-psql")
    write_pieces(project, PIECES)
    project.migration("10_csv", CSV)
    folder = small_disk(1)
    filler = fill(folder, PAGE)
    outcome = project.run("migrate", "up", "--json", env={"TMPDIR": str(folder)})
    state = read_state(project.database)
    assert ("table", "t") not in state.effects
    assert 10 not in state.versions
    assert os.listdir(folder) == ["filler"]
    check_words(outcome)
    assert [item["version"] for item in outcome.json()["data"]["applied"]] == [str(piece.number) for piece in PIECES]
    filler.unlink()
    project.run("migrate", "up", env={"TMPDIR": str(folder)}).ok()
    assert rows(project, "SELECT count(*) FROM t") == [(2000,)]
