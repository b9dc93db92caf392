"""Analyzes a whole database by several sessions: each takes the next table when it is done with one.

A partitioned table's partitions are analyzed with it (ANALYZE, before 18 without ONLY), so that only what is no
partition is named.
"""

from __future__ import annotations

import threading

# What ANALYZE without a table's name goes through (get_all_vacuum_rels in the server's sources), the largest last.
SQL_TABLES = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
ORDER BY c.relkind = 'p', pg_catalog.pg_relation_size(c.oid), c.oid
"""


def analyze(database, jobs):
    """Analyze every table of a database with `jobs` sessions. Raises what the first of them raises.

    Interrupted, it leaves each session with the table that it is at: who drops the database ends them.
    """
    if jobs < 2:
        database.execute("ANALYZE")
        return
    database.show("ANALYZE")  # of each table it would be said in no order
    names = [row["name"] for row in database.rows(SQL_TABLES)]
    failures: list = []
    others = [database.sibling(database.name) for _ in range(jobs)]
    threads = [threading.Thread(target=_work, args=(other, names, failures), daemon=True) for other in others]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        names.clear()
    if failures:
        raise failures[0]


def _work(database, names, failures):
    """Analyze the last of `names`, and take it off, until there is none left; in a thread and a session of its own."""
    database.shows_own = False
    try:
        while name := _take(names):
            database.execute(f"ANALYZE {name}")
    except Exception as failure:
        failures.append(failure)
        names.clear()
    finally:
        database.close()


def _take(names):
    try:
        return names.pop()
    except IndexError:  # to ask first would not do: another may take the last in between
        return None
