"""A cut stream never runs half a statement: what psql is sent is cut at every byte, and the tables are looked at.

At the end of its input psql executes what stands in its buffer, be it half a statement, so this is not a matter of
course. The texts are those that the program sends: made by `units`, written by `stream_text`. Each unit is fed to a
real psql in the state that the units before it leave; afterwards nothing of it may be done, or all of it. The versions
that stand beside the one that runs are its prefixes and its continuations, so that a version number cut short would
hit one of them.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from bed.gaps import Gap, not_run
from bed.local_processes import WHEEL_INSTALLS, host_programs, wait_until, wheel_folder

from nself_core.migrations import files, planning, survey, units
from nself_core.postgres.psql import ENVIRONMENT, PREAMBLE, stream_text
from nself_core.settings import load_settings

from .watch import WAIT

VERSION = 20240501
NEIGHBOURS = (2, 20, 202, 2024, 20240, 202405, 2024050, 202405010, 202405011)
MARK = "mark"
WORKERS = 3  # Scenes used side by side: a psql mostly waits for its server

FILES = {
    "transaction": """DELETE FROM t WHERE id = 10; -- ü
UPDATE t SET v = v + 1 WHERE id = 100 AND v = 100;
COPY t (id, v) FROM stdin;
5\t5
55\t55
\\.
INSERT INTO log VALUES ('done');
""",
    "self_test": "BEGIN;\nDELETE FROM t WHERE id = 10;\nROLLBACK;\n",
    "no_transaction": """-- nself:no-transaction
-- nself:lock-timeout=20s
DELETE FROM t WHERE id = 10;
CREATE INDEX CONCURRENTLY i ON t (id);
CALL p('ü');
BEGIN;
INSERT INTO log VALUES ('a');
COPY t (id, v) FROM stdin;
5\t5
55\t55
\\.
UPDATE t SET v = v + 1 WHERE id = 100 OR id = 1000;
COMMIT;
""",
}
DOWN = {
    "transaction": "DELETE FROM t WHERE id = 20;\nUPDATE t SET v = 1 WHERE id = 100;\n",
    "no_transaction": "-- nself:no-transaction\nDELETE FROM t WHERE id = 10;\nVACUUM t;\n",
}

SQL_SCENE = """
CREATE SCHEMA hdb_catalog;
CREATE TABLE hdb_catalog.schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL);
CREATE TABLE t (id int, v int);
CREATE TABLE log (word text);
CREATE PROCEDURE p(word text) LANGUAGE plpgsql AS $$
BEGIN INSERT INTO log VALUES (word); COMMIT; INSERT INTO log VALUES (word || '2'); COMMIT; END $$;
"""
SQL_RESET = f"""
DROP INDEX IF EXISTS i;
TRUNCATE t, log, hdb_catalog.schema_migrations, nself_db.migrations;
INSERT INTO t SELECT n, n FROM unnest(ARRAY[1, 10, 100, 1000, 20]) n;
INSERT INTO hdb_catalog.schema_migrations SELECT n, true FROM unnest(ARRAY[{", ".join(map(str, NEIGHBOURS))}]) n;
INSERT INTO nself_db.migrations (version, name, file, checksum, mode, statements, statements_done, started)
SELECT version, 'n', 'f', 'c', 'no_transaction', 9, 1, 2 FROM hdb_catalog.schema_migrations;
"""
SQL_APPLIED = f"""
INSERT INTO hdb_catalog.schema_migrations VALUES ({VERSION}, false);
INSERT INTO nself_db.migrations (version, name, file, checksum, mode) VALUES ({VERSION}, 'n', 'f', 'c', 'm');
"""
# One answer for everything, empty as long as a session of psql has not quite ended: it may still hold the lock.
SQL_STATE = """
SELECT pg_catalog.json_build_object(
    't', (SELECT json_agg(json_build_array(id, v) ORDER BY id, v) FROM t),
    'log', (SELECT json_agg(word ORDER BY word) FROM log),
    'indexes', (SELECT json_agg(indisvalid) FROM pg_index WHERE indrelid = 't'::regclass),
    'versions', (SELECT json_object_agg(version, dirty) FROM
                 (SELECT * FROM hdb_catalog.schema_migrations ORDER BY version) v),
    'records', (SELECT json_agg(json_build_array(version, name, file, checksum, mode, direction, statements,
                statements_done, prefix_hash, started) ORDER BY version) FROM nself_db.migrations)) AS state
WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cut' AND datname = current_database())
"""


class Scene:
    """A database with tables to harm, and a psql to feed.

    Arguments: `project`, whose database is still empty; `psql`, its path.
    """

    def __init__(self, project, psql):
        self._project = project
        self._connection = project.database.connect()
        cluster = project.database.server.cluster
        self._argv = [str(psql), "-X", "-q", "-w", "-h", str(cluster.socket_folder), "-p", str(cluster.port)]
        self._argv += ["-U", cluster.user, "-d", project.database.name]
        self._env = {"PGAPPNAME": "cut", "PGCLIENTENCODING": "UTF8", "LC_ALL": "C", "PATH": os.environ["PATH"]}
        self._env.update(ENVIRONMENT)
        self._connection.execute(SQL_SCENE)
        project.migration("1_first", "SELECT 1;")
        project.run("migrate", "up").ok()

    def work(self, up, down=None):
        """The Work of the migration with these texts: of its down file where there is one."""
        self._project.write(f"migrations/{VERSION}_m.sql", up)
        if down:
            self._project.write(f"migrations/{VERSION}_m.down.sql", down)
        listing = files.find_migrations(load_settings(project=str(self._project.root), environ={}))
        migration = next(item for item in listing.migrations if item.version == VERSION)
        entry = planning.Entry(VERSION, planning.PENDING, migration, None)
        return (survey.read_downs if down else survey.read_ups)([entry])[0]

    def restore(self, earlier, *before):
        """The tables as they are before a run, changed by statements `before`, and then by the stream `earlier`."""
        for statement in (SQL_RESET, *before):
            self._connection.execute(statement)
        if earlier:
            self.feed(earlier)
            self.state()

    def feed(self, data):
        """Let psql read `data` to its end, as bytes, after what the program sends first."""
        # A group of its own: what psql may start is ended with it.
        process = subprocess.Popen(
            self._argv, env=self._env, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            process.communicate(PREAMBLE.encode() + data, timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            raise AssertionError(f"psql does not end after {data[-60:]!r}: {out!r}") from None

    def state(self):
        """Everything there is to see, once psql's session has ended."""
        row = wait_until(lambda: self._connection.execute(SQL_STATE).fetchone(), WAIT, lambda: "psql's session stays")
        return row["state"]

    def close(self):
        self._connection.close()


def host_psql():
    """psql of this host's newest Postgres."""
    return _or_gap(lambda: host_programs()[0] / "psql")


def wheel_psql():
    """The newest psql there is, of the embedded wheel."""
    return _or_gap(lambda: wheel_folder() / WHEEL_INSTALLS[18] / "bin" / "psql")


def _or_gap(find):
    try:
        return find()
    except Gap as gap:
        return not_run(gap.what, gap.reason)


@pytest.fixture
def make_scenes(new_project):
    """make_scenes(psql) -> Scenes that are all alike, on this host's own Postgres, to be used side by side."""
    made = []

    def make(psql):
        made.extend(Scene(new_project("plain-psql"), psql) for _ in range(WORKERS))
        return made

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scenes(make_scenes):
    """Scenes with this host's psql."""
    return make_scenes(host_psql())


def texts_of(made):
    """The streams of units, as bytes."""
    return [stream_text(unit, MARK).encode() for unit in made]


def cut_everywhere(scenes, texts, *before, chosen=None):
    """Cut each unit's text at every byte; returns the states after each whole unit, the first before any.

    Arguments: `before`, statements that make the state before all units; `chosen`, the places of the units to be cut
    where others of the same form are. Asserts that a cut leaves the state before its unit or the state after it, and
    when it is done with n bytes, that it is with more.
    """
    states = reference_states(scenes[0], texts, *before)
    for number in range(len(texts)) if chosen is None else chosen:
        earlier, allowed = b"".join(texts[:number]), states[number : number + 2]
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [pool.submit(cut, scene, earlier, texts[number], place, allowed, before)
                    for place, scene in enumerate(scenes)]  # fmt: skip
        done = dict(item for job in jobs for item in job.result())
        assert [done[size] for size in sorted(done)] == sorted(done.values()), f"unit {number} is undone by more bytes"
        assert len(done) == len(texts[number]) + 1
        assert done[len(texts[number])] == (allowed[0] != allowed[1])
    return states


def cut(scene, earlier, text, place, allowed, before):
    """One scene's share of the cuts of `text`, as a list of (size, whether the unit is done)."""
    found = []
    scene.restore(earlier, *before)
    for size in range(place, len(text) + 1, WORKERS):
        scene.feed(text[:size])
        state = scene.state()
        assert state in allowed, f"cut behind {text[:size]!r}\n{state}\nis neither of\n{allowed}"
        found.append((size, state != allowed[0]))
        if state != allowed[0]:
            scene.restore(earlier, *before)
    return found


def reference_states(scene, texts, *before):
    """The states after no unit, the first, the first two … each run whole."""
    scene.restore(b"", *before)
    states = [scene.state()]
    for text in texts:
        scene.feed(text)
        states.append(scene.state())
    return states


def records_of(state):
    """{version: (done, started)} of nself_db.migrations."""
    return {row[0]: (row[7], row[9]) for row in state["records"]}


def test_a_cut_file_is_applied_and_recorded_or_neither(scenes):
    work = scenes[0].work(FILES["transaction"])
    check_applied(*cut_everywhere(scenes, texts_of([units.transaction_unit(None, work)])))


def test_so_it_is_with_the_newest_psql_and_data_in_a_file(make_scenes, tmp_path):
    def write(*pieces):
        path = tmp_path / "handed"
        path.write_bytes(b"".join(pieces))
        return str(path)

    scenes = make_scenes(wheel_psql())
    csv = FILES["transaction"].replace("\t", ",").replace("FROM stdin", "FROM stdin (FORMAT csv)")
    text = stream_text(units.transaction_unit(None, scenes[0].work(csv)), MARK, write)
    assert "\\i '" in text
    check_applied(*cut_everywhere(scenes, [text.encode()]))


def check_applied(before, after):
    assert str(VERSION) not in before["versions"]
    assert after["versions"][str(VERSION)] is False
    assert [5, 5] in after["t"] and [55, 55] in after["t"] and [10, 10] not in after["t"]


def test_a_cut_self_test_is_undone_and_recorded_or_not(scenes):
    work = scenes[0].work(FILES["self_test"])
    before, after = cut_everywhere(scenes, texts_of([units.self_test_unit(None, work)]))
    assert after["versions"] == {**before["versions"], str(VERSION): False}
    assert after["t"] == before["t"]


def test_a_cut_rollback_is_done_and_forgotten_or_neither(scenes):
    work = scenes[0].work("SELECT 1;", DOWN["transaction"])
    before, after = cut_everywhere(scenes, texts_of([units.transaction_unit(None, work)]), SQL_APPLIED)
    assert str(VERSION) in before["versions"]
    assert str(VERSION) not in after["versions"]
    assert len(after["t"]) == len(before["t"]) - 1


def test_a_cut_file_outside_a_transaction_never_counts_what_is_not_done(scenes):
    work = scenes[0].work(FILES["no_transaction"])
    texts = texts_of(units.partial_units(work, 0, True))
    # The procedure is begun and counted as the index is: of its three units only the middle one is another.
    alike = [number for number, text in enumerate(texts) if b"started = 3" in text or b"statements_done = 3" in text]
    assert len(alike) == 2
    states = cut_everywhere(scenes, texts, chosen=[n for n in range(len(texts)) if n not in alike])
    told = [(records_of(state).get(VERSION), len(state["indexes"] or ()), len(state["log"] or ()),
             state["versions"].get(str(VERSION))) for state in states]  # fmt: skip
    # (done, begun), indexes, rows of the log, dirty: the index and the procedure run alone, begun, done and counted.
    assert [step for step, _ in itertools.groupby(told)] == [
        (None, 0, 0, None), ((0, None), 0, 0, True), ((1, None), 0, 0, True),
        ((1, 2), 0, 0, True), ((1, 2), 1, 0, True), ((2, None), 1, 0, True),
        ((2, 3), 1, 0, True), ((2, 3), 1, 2, True), ((3, None), 1, 2, True),
        ((6, None), 1, 3, True), ((6, None), 1, 3, False),
    ]  # fmt: skip


def test_a_cut_rollback_outside_a_transaction_never_forgets_too_early(scenes):
    work = scenes[0].work("SELECT 1;", DOWN["no_transaction"])
    texts = texts_of(units.partial_units(work, 0, True))
    states = cut_everywhere(scenes, texts, SQL_APPLIED, chosen=(0, len(texts) - 1))
    assert all(VERSION in records_of(state) for state in states[:-1])
    assert VERSION not in records_of(states[-1])
    assert str(VERSION) not in states[-1]["versions"]
