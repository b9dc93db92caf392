"""A restore held in its midst, and what must be there once it was struck.

The moments are held by sessions of a certain name, which every database of a server sees: while one of them is there,
an index of the backup's table waits, in its making (the load) or where it is analyzed (after the load). The swap is
held by a lock on the database.
"""

from __future__ import annotations

import contextlib

import psycopg
from bed.local_processes import wait_until

from .watch import WAIT, outcome_of

SECONDS = 15  # in which the program's server processes must be gone
ROWS = 3000
FILL = f"""
CREATE FUNCTION gate(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$
DECLARE phase text := CASE WHEN current_query() ILIKE '%analyze%' THEN 'analyze' ELSE 'load' END;
BEGIN
    WHILE EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'gate_' || phase) LOOP
        PERFORM pg_sleep(0.02);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
    RETURN i;
END $f$;
CREATE TABLE t AS SELECT i, md5(i::text) AS text FROM generate_series(1, {ROWS}) i;
CREATE TABLE u AS SELECT i FROM generate_series(1, 10) i;
CREATE INDEX slow ON t (gate(i));
CREATE INDEX other ON t (i);
ANALYZE;
"""
SQL_OURS = """
SELECT pid, datname, state, query FROM pg_stat_activity WHERE application_name LIKE 'nself-db%%'
AND starts_with(datname, %s)
"""
SQL_WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE %s AND starts_with(datname, %s)"
SQL_OPEN = "SELECT 1 FROM pg_database WHERE datname = %s AND datallowconn"
PHASES = {"load": "%INDEX slow%", "analyze": "%ANALYZE%"}


def of_server(project, statement, parameters=None):
    return project.database.server.cluster.admin(statement, parameters=parameters)


def beside(project, kind=""):
    """The names of the databases beside the project's own."""
    rows = of_server(project, "SELECT datname FROM pg_database ORDER BY 1")
    return [row["datname"] for row in rows if row["datname"].startswith(f"{project.database.name}_{kind}")]


def ours(project):
    """The program's sessions in the project's database and those beside it."""
    return of_server(project, SQL_OURS, [project.database.name])


def wait_until_dumping(project):
    """Wait until pg_dump asks for the sequence, which the test holds."""
    wait_until(
        lambda: [row for row in ours(project) if row["query"].startswith("SELECT last_value")],
        WAIT,
        lambda: f"{ours(project)}",
    )


def wait_until_ended(project):
    wait_until(lambda: not ours(project), SECONDS, lambda: f"still there: {ours(project)}")


def check_present(project, rows=11):
    """The database serves, and is the one that was there (11 rows) or the backup (10)."""
    assert project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == ROWS
    assert project.database.admin("SELECT count(*) AS n FROM u")[0]["n"] == rows
    project.database.admin("CREATE TABLE written (); DROP TABLE written")


def check_next(project, left):
    """The next restore works and names what is left, which --clean removes."""
    outcome = project.run("restore", "--force", "--no-safety-backup").ok()
    assert all(name in outcome.err for name in left), repr(outcome)
    check_present(project, 10)
    project.run("restore", "--clean", "--force").ok()
    assert beside(project) == []


def check_stopped(project, outcome):
    """A restore whose server stopped before the swap has named what it left, and the next one works."""
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err
    left = beside(project)
    assert all(name in outcome.err for name in left), repr(outcome)
    check_present(project)
    check_next(project, left)


@contextlib.contextmanager
def held(project, phase, *options):
    """A restore that waits in its `phase`; gives the process."""
    with project.database.server.cluster.connect(application_name=f"gate_{phase}") as gate:
        process = project.start("restore", "--force", "--no-safety-backup", *options)
        pattern = [PHASES[phase], project.database.name]
        wait_until(
            lambda: gate.execute(SQL_WAITS, pattern).fetchone() or process.poll() is not None,
            WAIT,
            lambda: f"{ours(project)}",
        )
        assert process.poll() is None, repr(outcome_of(process))
        yield process


@contextlib.contextmanager
def held_in_the_swap(project, *words, **options):
    """A command whose swap waits for a lock on the database, which it has closed; gives (process, the swap's pid)."""
    cluster, name = project.database.server.cluster, project.database.name
    holder, watching = cluster.connect(), cluster.connect()
    try:
        holder.execute(psycopg.sql.SQL("BEGIN; COMMENT ON DATABASE {} IS 'held'").format(psycopg.sql.Identifier(name)))
        process = project.start("restore", *words, "--force", **options)
        find = (
            "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE NOT l.granted AND l.locktype = 'object' AND a.application_name LIKE 'nself-db%'"
        )
        wait_until(
            lambda: watching.execute(find).fetchone() or process.poll() is not None, WAIT, lambda: f"{ours(project)}"
        )
        assert process.poll() is None, repr(outcome_of(process))
        assert not watching.execute(SQL_OPEN, [name]).fetchone()
        yield process, watching.execute(find).fetchone()["pid"]
    finally:
        holder.close()
        watching.close()
