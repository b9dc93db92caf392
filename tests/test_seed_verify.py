"""`seed verify`: what the seeds would still add, what cannot run twice, what is not true; the data stay as they are."""

from __future__ import annotations

import pytest
from bed.bookkeeping import values

TABLES = """
CREATE TABLE np_users (id int PRIMARY KEY, email text UNIQUE);
CREATE TABLE np_notes (body text);
CREATE TABLE np_parts (id int, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE np_parts_2024 PARTITION OF np_parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
"""
USERS = "INSERT INTO np_users VALUES (1, 'a'), (2, 'b') ON CONFLICT DO NOTHING;\n"


def shop(project):
    project.database.admin(TABLES)
    return project


@pytest.fixture
def plain_shop(plain_project):
    return shop(plain_project)


def findings(project, *options):
    outcome = project.run("seed", "verify", "--json", *options)
    found = outcome.json()["data"]["findings"]
    assert outcome.code == (1 if found else 0)
    return [(one["file"], one["kind"], one["table"], one["rows"]) for one in found]


@pytest.mark.versions
def test_rows_that_are_missing_are_counted_and_the_data_stay(project):
    shop(project)
    project.write("seeds/users.sql", USERS)
    project.write("seeds/np_notes.csv", "body\none\ntwo\n")
    project.run("seed", "run").ok()
    assert findings(project, "--twice") == []
    project.database.admin("DELETE FROM np_users WHERE id = 2; DELETE FROM np_notes")
    assert findings(project) == [
        ("seeds/np_notes.csv", "missing rows", "np_notes", 2),
        ("seeds/users.sql", "missing rows", "np_users", 1),
    ]
    assert values(project, "SELECT count(*) FROM np_users") == [(1,)]
    assert values(project, "SELECT count(*) FROM np_notes") == [(0,)]


def test_a_unique_violation_is_not_idempotent(plain_shop):
    plain_shop.write("seeds/users.sql", "INSERT INTO np_users VALUES (1, 'a');\n")
    plain_shop.run("seed", "run").ok()
    assert findings(plain_shop) == [("seeds/users.sql", "not idempotent", None, None)]


def test_twice_finds_what_adds_rows_each_time(plain_shop):
    plain_shop.write("seeds/notes.sql", "INSERT INTO np_notes SELECT 'x' WHERE (SELECT count(*) FROM np_notes) <> 1;\n")
    plain_shop.database.admin("INSERT INTO np_notes VALUES ('x')")
    assert findings(plain_shop) == []
    plain_shop.write("seeds/notes.sql", "INSERT INTO np_notes VALUES ('x');\n")
    assert findings(plain_shop, "--twice") == [
        ("seeds/notes.sql", "missing rows", "np_notes", 1),
        ("seeds/notes.sql", "not idempotent", "np_notes", 1),
    ]


def test_what_a_seed_says_must_be_true_is_looked_at(plain_shop):
    plain_shop.write("seeds/users.sql", "-- +seed:verify SELECT count(*) = 3 FROM np_users\n" + USERS)
    plain_shop.run("seed", "run").ok()
    outcome = plain_shop.run("seed", "verify")
    assert (outcome.code, "seeds/users.sql:1" in outcome.out, "not true" in outcome.out) == (1, True, True)


def test_a_partition_counts_for_its_table(plain_shop):
    plain_shop.write("seeds/parts.sql", "INSERT INTO np_parts_2024 VALUES (1, '2024-02-02');\n")
    assert findings(plain_shop) == [("seeds/parts.sql", "missing rows", "np_parts", 1)]


def test_what_triggers_write_elsewhere_is_not_counted(plain_shop):
    plain_shop.database.admin(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO np_notes VALUES ('t'); "
        "RETURN NEW; END$$; CREATE TRIGGER t BEFORE INSERT ON np_users FOR EACH ROW EXECUTE FUNCTION note()"
    )
    plain_shop.write("seeds/users.sql", USERS)
    plain_shop.run("seed", "run").ok()
    assert findings(plain_shop) == []


def test_a_seed_that_fails_does_not_hide_the_others(plain_shop):
    plain_shop.write("seeds/a.sql", "INSERT INTO np_users VALUES (1/0);\n")
    plain_shop.write("seeds/b.sql", USERS)
    assert findings(plain_shop) == [
        ("seeds/a.sql", "fails", None, None),
        ("seeds/b.sql", "missing rows", "np_users", 2),
    ]


def test_a_destructive_seed_is_not_run_and_that_is_said(plain_shop):
    plain_shop.write("seeds/a.sql", "-- +seed:destructive\nDELETE FROM np_users;\n")
    plain_shop.database.admin("INSERT INTO np_users VALUES (9, 'z')")
    outcome = plain_shop.run("seed", "verify").ok()
    assert "seeds/a.sql says that it is destructive" in outcome.err


def test_one_seed_may_be_named(plain_shop):
    plain_shop.write("seeds/a.sql", "INSERT INTO np_users VALUES (1/0);\n")
    plain_shop.write("seeds/b.sql", USERS)
    assert findings(plain_shop, "--file", "b.sql") == [("seeds/b.sql", "missing rows", "np_users", 2)]
