"""`seed verify`: what the seeds would still add, what cannot run twice, what is not true; the data stay as they are."""

from __future__ import annotations

import pytest
from bed.bookkeeping import schemas, values
from bed.seeds import NASTY, write_seeds

from nself_core.sql.quoting import identifier

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


# The same under a fingerprint of all that is there.

FINGERPRINT = """
SELECT (SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY id), '')) FROM t) AS rows,
       (SELECT string_agg(relname || relfilenode, ',' ORDER BY oid) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace) AS relations
"""


@pytest.fixture
def kept(plain_project):
    """A project with a table `t`."""
    plain_project.database.admin("CREATE TABLE t (id int PRIMARY KEY, note text)")
    return plain_project


def verified(project, files, *options):
    """(exit code, findings) of `seed verify` with these seeds; the data must stay as they are."""
    write_seeds(project.root, files)
    before = values(project, FINGERPRINT)
    outcome = project.run("seed", "verify", "--json", *options)
    assert values(project, FINGERPRINT) == before
    assert "Traceback" not in outcome.err
    return outcome.code, outcome.json()["data"]["findings"]


def kinds(findings):
    return [(one["file"], one["kind"], one["rows"]) for one in findings]


@pytest.mark.versions
def test_it_tells_what_is_missing_and_is_silent_once_it_is_there(project):
    project.database.admin("CREATE TABLE t (id int PRIMARY KEY, note text)")
    project.database.admin("CREATE TABLE u (id int, note text)")
    files = {
        "a.sql": "-- verify: SELECT count(*) > 1 FROM t\nINSERT INTO t VALUES (1), (2) ON CONFLICT DO NOTHING;",
        "u.csv": 'id,note\n1,"x\n\\.\n"\n2,y\n',
    }
    code, findings = verified(project, files)
    assert (code, kinds(findings)) == (1, [("seeds/a.sql", "missing rows", 2), ("seeds/u.csv", "missing rows", 2)])
    assert schemas(project) == []
    project.run("seed", "run").ok()
    assert verified(project, {}, "--twice") == (0, [])
    project.database.admin("DELETE FROM t WHERE id = 2")
    project.database.admin("DELETE FROM u WHERE id = 1")
    code, findings = verified(project, {})
    assert kinds(findings) == [("seeds/a.sql", "missing rows", 1), ("seeds/u.csv", "missing rows", 1)]
    assert [one["table"] for one in findings] == ["t", "u"]


def test_a_seed_that_cannot_run_twice_is_not_idempotent(kept):
    kept.database.admin("INSERT INTO t VALUES (1, 'a')")
    code, findings = verified(kept, {"a.sql": "-- words\nINSERT INTO t VALUES (1, 'a');"})
    assert (code, kinds(findings)) == (1, [("seeds/a.sql", "not idempotent", None)])
    assert findings[0]["line"] == 2


def test_twice_finds_rows_that_each_run_adds(kept):
    kept.database.admin("CREATE TABLE u (n int)")
    kept.database.admin("INSERT INTO u VALUES (1)")
    seed = {"a.sql": "INSERT INTO u SELECT count(*) FROM u WHERE (SELECT count(*) FROM u) < 3;"}
    assert kinds(verified(kept, seed, "--twice")[1]) == [
        ("seeds/a.sql", "missing rows", 1),
        ("seeds/a.sql", "not idempotent", 1),
    ]


def test_what_must_be_true_is_asked_and_told_with_its_line(kept):
    seed = (
        "-- +seed:verify SELECT count(*) = 1 FROM t;\n-- +seed:verify SELECT note = 'b' FROM t -- so it is\n"
        "-- +seed:verify SELECT NULL::bool\n-- +seed:verify SELECT true WHERE false\nINSERT INTO t VALUES (1, 'a')"
        " ON CONFLICT DO NOTHING;\n"
    )
    kept.database.admin("INSERT INTO t VALUES (1, 'a')")
    code, findings = verified(kept, {"a.sql": seed})
    assert code == 1
    assert [(one["kind"], one["line"]) for one in findings] == [("not true", 2), ("not true", 3), ("not true", 4)]
    assert findings[0]["message"] == "SELECT note = 'b' FROM t -- so it is"


@pytest.mark.parametrize(
    "question", ["SELECT no_such()", "SELECT true FROM generate_series(1, 2)", "SELECT 1; SELECT 2"]
)
def test_a_question_that_fails_is_a_finding_and_the_next_seed_is_looked_at_all_the_same(kept, question):
    code, findings = verified(kept, {"a.sql": f"-- verify: {question}\n", "b.sql": "INSERT INTO t VALUES (5);"})
    assert code == 1
    assert kinds(findings) == [("seeds/a.sql", "fails", None), ("seeds/b.sql", "missing rows", 1)]


def test_a_seed_that_fails_is_a_finding_with_its_line_and_the_next_is_looked_at_all_the_same(kept):
    files = {"1.sql": "SELECT 1;\nSELECT 1 / 0;", "t.csv": "id,note\n1,a\nx,b\n", "z.sql": "SELECT 1;"}
    code, findings = verified(kept, files)
    assert code == 1
    assert [(one["file"], one["kind"], one["line"]) for one in findings] == [
        ("seeds/1.sql", "fails", 2),
        ("seeds/t.csv", "fails", 3),
    ]


@pytest.mark.parametrize(
    "seed",
    [
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nINSERT INTO t VALUES (1) ON CONFLICT DO NOTHING;",
        "BEGIN ISOLATION LEVEL REPEATABLE READ;\nINSERT INTO t VALUES (1) ON CONFLICT DO NOTHING;\nCOMMIT;",
        "-- verify: SELECT count(*) = 1 FROM t\nSELECT set_config('search_path', '', false);\nSELECT 1;",
        "-- verify: SELECT count(*) = 1 FROM t\nSET search_path = '';",
        "CREATE TEMP TABLE stage (id int);\nINSERT INTO t SELECT id FROM stage;",
        "PREPARE p AS SELECT 1;\nDECLARE c CURSOR WITH HOLD FOR SELECT 1;",
        "SET ROLE pg_monitor;",
        "-- nself:statement-timeout=5s\nSELECT 1;",
    ],
)
def test_a_seed_that_is_right_is_found_right_twice_whatever_it_sets(kept, seed):
    kept.database.admin("INSERT INTO t VALUES (1)")
    assert verified(kept, {"a.sql": seed}, "--twice") == (0, [])
    kept.run("seed", "run").ok()


def test_a_fault_behind_set_transaction_has_its_own_line(kept):
    seed = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nSELECT 1;\nSELECT 1 / 0;\n"
    assert verified(kept, {"a.sql": seed})[1][0]["line"] == 3
    assert kept.run("seed", "run", "--json").json()["error"]["line"] == 3


def test_a_seed_that_commits_by_itself_leaves_nothing(kept):
    kept.database.admin("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (9); COMMIT; END'")
    code, findings = verified(kept, {"a.sql": "INSERT INTO t VALUES (8);\nCALL p();"})
    assert (code, kinds(findings)) == (1, [("seeds/a.sql", "fails", None)])


def test_a_destructive_seed_is_not_run_and_said_so(kept):
    write_seeds(kept.root, {"a.sql": "-- +seed:destructive\nDELETE FROM t;"})
    outcome = kept.run("seed", "verify").ok()
    assert "seeds/a.sql says that it is destructive: not verified" in outcome.err


def test_only_one_file(kept):
    write_seeds(kept.root, {"a.sql": "INSERT INTO t VALUES (1);", "b.sql": "SELECT 1;"})
    assert kept.run("seed", "verify", "--file", "b.sql").code == 0
    assert kept.run("seed", "verify", "--file", "a.sql").code == 1


def test_names_of_any_kind(kept):
    kept.database.admin(f"CREATE TABLE {identifier(NASTY)} (a text)")
    code, findings = verified(kept, {f"{NASTY}.json": '[{"a": "x"}, {"a": "y"}]'})
    assert (code, [(one["table"], one["rows"]) for one in findings]) == (1, [(NASTY, 2)])


def test_it_waits_for_no_run(kept):
    with kept.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        assert verified(kept, {"a.sql": "SELECT 1;"}) == (0, [])
