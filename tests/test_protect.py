"""`protect`: a marker in the database, under which nothing that destroys runs, whatever is said."""

from __future__ import annotations

import pytest
from bed.bookkeeping import applied, schemas, tables, values

from nself_core.teardown.protect import plan_protect

LOCK_KEY = 0x6E73656C66
FREE = {"protected": False, "readable": False, "has_schema": False}


@pytest.fixture
def ready(plain_project):
    plain_project.migration("1_a", "CREATE TABLE np_a (id int);")
    plain_project.run("migrate", "up").ok()
    return plain_project


def refused(outcome):
    assert outcome.code == 4
    assert "this database is protected since 20" in outcome.err
    assert "protect --off" in outcome.err
    return True


def test_while_it_is_set_drop_and_reset_are_refused(project):
    project.migration("1_a", "CREATE TABLE np_a (id int);")
    project.run("migrate", "up").ok()
    assert project.run("protect", "--json").ok().json()["data"] == {"protected": True, "changed": True}
    for words in (["drop", "--force"], ["reset", "--force", "--all"]):
        assert refused(project.run(*words))
    assert (tables(project), applied(project)) == (["np_a"], [1])
    assert project.run("protect", "--off", "--json").ok().json()["data"] == {"protected": False, "changed": True}
    project.run("drop", "--force", "--cascade").ok()
    assert tables(project) == []


def test_refused_also_with_every_word_of_consent_and_when_there_is_nothing(ready):
    ready.write_env(ready.database.settings, ".env.prod")
    ready.run("protect", "--env", "prod").ok()
    name = ready.root.name
    assert refused(ready.run("drop", "--env", "prod", "--force", "--confirm", name, "--cascade", "--include-audit"))
    assert refused(ready.run("drop", "--dry-run"))
    ready.database.admin("DROP TABLE np_a; DELETE FROM hdb_catalog.schema_migrations")
    assert refused(ready.run("drop"))


def test_a_second_time_it_says_so(ready):
    assert "is not protected already" in ready.run("protect", "--off").ok().out
    ready.run("protect").ok()
    before = values(ready, "SELECT * FROM nself_db.protection")
    outcome = ready.run("protect", "--json").ok()
    assert outcome.json()["data"] == {"protected": True, "changed": False}
    assert "is protected already" in outcome.err
    assert values(ready, "SELECT * FROM nself_db.protection") == before


def test_to_take_it_away_is_asked_for_in_prod_only(ready):
    ready.write_env(ready.database.settings, ".env.prod")
    ready.run("protect", "--env", "prod").ok()
    outcome = ready.run("protect", "--off", "--env", "prod", "--force")
    assert outcome.code == 4
    assert "its protection" in outcome.err
    assert refused(ready.run("drop", "--force"))
    ready.run("protect", "--off", "--env", "prod", "--force", "--confirm", ready.root.name).ok()
    ready.run("protect").ok()
    ready.run("protect", "--off").ok()


def test_nothing_but_the_marker_is_made_and_reading_makes_nothing(plain_project):
    plain_project.run("protect", "--off").ok()
    plain_project.run("protect", "--dry-run").ok()
    assert schemas(plain_project) == []
    plain_project.run("protect").ok()
    assert schemas(plain_project) == ["nself_db"]
    assert tables(plain_project, "nself_db") == ["protection"]
    assert refused(plain_project.run("drop", "--force"))


def test_a_role_with_no_rights_on_it_finds_it_set(ready):
    ready.run("protect").ok()
    ready.database.admin("DROP ROLE IF EXISTS np_outsider")
    ready.database.admin("CREATE ROLE np_outsider LOGIN PASSWORD 'x'")
    try:
        url = ready.database.settings["NSELF_DB_URL"]
        url += f"{'&' if '?' in url else '?'}user=np_outsider&password=x"
        outcome = ready.run("drop", "--force", "--url", url)
        assert (outcome.code, "this database is protected; nothing was changed" in outcome.err) == (4, True)
        assert ready.run("protect", "--off", "--url", url).code == 1
    finally:
        ready.database.admin("DROP ROLE np_outsider")
    assert refused(ready.run("drop", "--force"))


def test_it_waits_for_a_run_that_destroys(ready):
    """Both take the migration lock: a database that is said to be protected is not dropped afterwards."""
    with ready.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        assert ready.run("protect", "--lock-wait", "0").code == 4
    assert schemas(ready) == ["hdb_catalog", "nself_db"]


def test_a_marker_that_came_after_the_consent_still_stops_the_drop(ready):
    with ready.database.connect() as other:
        other.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        process = ready.start("drop", "--force")
        consented = "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%%pg_try_advisory_lock%%'" \
                    " AND application_name = 'nself-db drop'"  # fmt: skip
        while other.execute(consented).fetchone()["n"] == 0:
            assert process.poll() is None
        other.execute("CREATE TABLE nself_db.protection AS SELECT now() AS protected_at, 'me' AS protected_by")
        other.execute(f"SELECT pg_advisory_unlock({LOCK_KEY})")
        _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "this database is protected since" in err
    assert (tables(ready), applied(ready)) == (["np_a"], [1])


def test_prod_is_offered_it_by_migrate_up_once_and_dev_never(plain_project):
    plain_project.write_env(plain_project.database.settings, ".env.prod")
    said = "this database is not protected"
    for number in (1, 2, 3, 4):
        plain_project.migration(f"{number}_x", f"CREATE TABLE np_{number} ();")
    assert said not in plain_project.run("migrate", "up", "--count", "1").ok().err
    assert plain_project.run("migrate", "up", "--count", "1", "--env", "prod").ok().err.count(said) == 1
    assert plain_project.run("migrate", "up", "--count", "1", "--env", "prod", "--quiet").ok().err == ""
    plain_project.run("protect", "--env", "prod").ok()
    assert said not in plain_project.run("migrate", "up", "--env", "prod").ok().err
    assert said not in plain_project.run("migrate", "up", "--env", "prod").ok().err


def test_bad_input(plain_project):
    assert plain_project.run("protect", "on").code == 1
    assert plain_project.run("protect", "--off=yes").code == 1


# Without a server.


def test_what_is_planned():
    set_it = plan_protect(FREE, False)
    assert (set_it.destroys, set_it.asks_everywhere) == (False, False)
    assert "CREATE SCHEMA" in set_it.steps[0].sql
    assert "CREATE SCHEMA" not in plan_protect({**FREE, "has_schema": True}, False).steps[0].sql
    assert plan_protect({**FREE, "protected": True}, True).destroys
    assert not plan_protect(FREE, True).steps
    assert not plan_protect({**FREE, "protected": True}, False).steps
