"""A secret stands in no argument list, no line of output and no world-readable file, whatever goes wrong."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

import pytest
from psycopg import sql

BOTH_DRIVERS = pytest.mark.parametrize("plain_server", ["psql", "psycopg"], indirect=True)
SLOW = "SELECT pg_sleep(1) AS slept"


@pytest.fixture
def secret():
    """A password that nothing else on this machine has, with what a URL must encode."""
    return f"s3cret/{secrets.token_hex(12)}@:?"


@pytest.fixture
def owner(plain_project, secret):
    """`plain_project`, its URL that of a login role whose password is `secret`."""
    name = f"owner_{secrets.token_hex(4)}"
    cluster = plain_project.database.server.cluster
    create = "CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}"
    plain_project.database.admin(sql.SQL(create).format(sql.Identifier(name), sql.Literal(secret)))
    url = cluster.url(plain_project.database.name, user=name, password=secret)
    plain_project.write_env({**plain_project.database.settings, "NSELF_DB_URL": url})
    yield plain_project
    plain_project.database.admin(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    plain_project.database.admin(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def forms(secret):
    """How the password could be written."""
    encoded = secret.replace("/", "%2F").replace("@", "%40").replace(":", "%3A").replace("?", "%3F")
    return {secret, encoded, secret[:20], secret[7:31]}


def command_lines():
    """The argument list of every process on this machine, as one text each."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def watch(process, words):
    """Look at all argument lists until the process ends: (those that hold one of `words`, how many looks)."""
    leaks, looks = set(), 0
    while process.poll() is None:
        leaks |= {line for line in command_lines() if any(word in line for word in words)}
        looks += 1
    return leaks, looks


def test_the_watch_sees_an_argument(run, secret):
    process = run.start("list", "--url", f"postgresql://u:{secret[7:31]}@127.0.0.1:1/d")
    assert watch(process, forms(secret))[0]


@BOTH_DRIVERS
@pytest.mark.parametrize("words", [("migrate", "up"), ("shell", "--command", SLOW)], ids=" ".join)
def test_a_password_in_an_env_file_is_in_no_argument_list(owner, secret, words):
    owner.migration("1_a", f"{SLOW};")
    process = owner.start(*words, "--verbose")
    leaks, looks = watch(process, forms(secret))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert looks > 3
    assert leaks == set()
    assert not any(form in out + err for form in forms(secret))


@pytest.mark.servers("container-15")
def test_the_passwords_of_a_container_are_in_no_argument_list(project, secret):
    settings = {**project.database.settings, "NSELF_DB_READER_PASSWORD": secret, "POSTGRES_PASSWORD": secret}
    project.write_env(settings)
    process = project.start("shell", "--command", SLOW, "--verbose")
    leaks, looks = watch(process, forms(secret))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert looks > 3
    assert leaks == set()
    assert not any(form in out + err for form in forms(secret))


@BOTH_DRIVERS
@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
def test_a_wrong_password_is_exit_3_and_is_not_repeated(plain_project, secret, as_json):
    cluster = plain_project.database.server.cluster
    url = cluster.url(plain_project.database.name, password=secret)
    plain_project.write_env({**plain_project.database.settings, "NSELF_DB_URL": url})
    for words in (("migrate", "status"), ("shell", "--command", "SELECT 1")):
        outcome = plain_project.run(*words, "--verbose", *as_json)
        assert outcome.code == 3, outcome
        assert "password authentication failed" in outcome.err
        assert not any(form in outcome.out + outcome.err for form in forms(secret))
        if as_json:
            assert outcome.json()["error"]["code"] == "credentials_refused"


@BOTH_DRIVERS
def test_no_password_at_all_is_exit_3(plain_project):
    cluster = plain_project.database.server.cluster
    url = f"postgresql://{cluster.user}@{cluster.host}:{cluster.port}/{plain_project.database.name}"
    plain_project.write_env({**plain_project.database.settings, "NSELF_DB_URL": url})
    outcome = plain_project.run("list")
    assert outcome.code == 3
    assert "no password supplied" in outcome.err


@BOTH_DRIVERS
def test_a_server_that_repeats_the_password_is_masked(owner, secret):
    quoted = secret.replace("'", "''")
    outcome = owner.run("shell", "--command", f"SELECT '{quoted}'::int", "--json")
    assert outcome.code == 1
    assert not any(form in outcome.out + outcome.err for form in {secret, secret[7:31]})


@pytest.mark.parametrize("url", ["postgresql://u:{}@h/d", "postgresql://u:12/{}@h/d", "postgresql://h?password={}@x"])
def test_a_url_that_cannot_be_read_does_not_show_its_password(plain_project, secret, url):
    outcome = plain_project.run("list", "--url", url.format(secret), "--json")
    assert outcome.code in (1, 2)
    assert secret[7:31] not in outcome.out + outcome.err


@BOTH_DRIVERS
def test_the_readers_password_is_in_a_private_file_alone(owner, secret):
    try:
        process = owner.start("shell", "--install-reader", "--force", "--verbose", "--json")
        before = owner.root / ".nself" / "reader-dev"
        while process.poll() is None and not before.exists():
            pass
        leaks, _ = watch(process, {before.read_text(encoding="utf-8").strip() if before.exists() else secret})
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        password = before.read_text(encoding="utf-8").strip()
        assert len(password) >= 32
        assert stat.S_IMODE(before.stat().st_mode) == 0o600
        assert (before.parent / ".gitignore").read_text(encoding="utf-8") == "*\n"
        assert leaks == set()
        outcome = owner.run("shell", "--command", "SELECT current_user", "--verbose", "--json").ok()
        assert outcome.json()["data"]["rows"] == [["nself_reader"]]
        assert password not in out + err + outcome.out + outcome.err
        assert password not in owner.run("shell", "--install-reader", "--dry-run").ok().out
        (verifier,) = owner.database.admin("SELECT rolpassword AS v FROM pg_authid WHERE rolname = 'nself_reader'")
        assert verifier["v"].startswith("SCRAM-SHA-256$4096:")
    finally:
        owner.database.admin("DROP OWNED BY nself_reader")
        owner.database.admin("DROP ROLE IF EXISTS nself_reader")
