"""The sample project: its files belong together, and every migration, seed and policy does on a server what it says."""

from __future__ import annotations

import csv
import graphlib
import json
import re
import shutil

import psycopg
import pytest
import yaml
from bed.projects import REPOSITORY, Project, Runner
from bed.servers import Database
from psycopg import sql
from psycopg.rows import tuple_row

from nself_core.guard.check_sql import sql_unsatisfied
from nself_core.guard.requirements import requirements
from nself_core.hasura.project import read_local_metadata
from nself_core.settings import load_settings

MIGRATIONS = REPOSITORY / "migrations"
SEEDS = REPOSITORY / "seeds"
FIXTURES = REPOSITORY / "fixtures"
METADATA = REPOSITORY / "hasura" / "metadata"
UPS = sorted(path for path in MIGRATIONS.glob("*.sql") if not path.name.endswith(".down.sql"))

# Everything that migrations make in schema public, one line a thing; what its definition leaves open (columns, a
# partition's bounds, whether a constraint is validated) stands in the definition here.
SNAPSHOT = """
SELECT concat_ws(' ', 'relation', c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
    pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'),
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END) AS line
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
UNION ALL
SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'v', 'm')
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
UNION ALL
SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid), i.indisvalid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
UNION ALL
SELECT concat_ws(' ', 'policy', to_jsonb(p)) FROM pg_policies p WHERE p.schemaname = 'public'
UNION ALL
SELECT concat_ws(' ', 'function', pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'))
FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
UNION ALL
SELECT concat_ws(' ', 'enum', t.typname, string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder))
FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid WHERE t.typnamespace = 'public'::regnamespace GROUP BY t.typname
ORDER BY 1
"""

ALICE, BOB, CHIOMA, DAICHI, ELSA, FARID = (f"ac000000-0000-4000-8000-{number:012}" for number in range(1, 7))
COMMUNITY, HARBOUR, ALPINE = (f"7e000000-0000-4000-8000-{number:012}" for number in range(3))


# --- files ------------------------------------------------------------------------------------------------------------


def test_every_migration_has_a_down_file():
    downs = {path.name.replace(".down.sql", ".sql") for path in MIGRATIONS.glob("*.down.sql")}
    assert downs == {path.name for path in UPS}


def test_migrations_are_named_by_a_moment_and_what_they_do():
    odd = [path.name for path in UPS if not re.fullmatch(r"2024[01]\d[0-3]\d[0-2]\d[0-5]\d{3}_[a-z_]+\.sql", path.name)]
    assert not odd
    assert len({path.name[:14] for path in UPS}) == len(UPS)


def test_migrations_need_no_extension():
    assert not [path.name for path in MIGRATIONS.glob("*.sql") if "EXTENSION" in path.read_text(encoding="utf-8")]


def test_the_two_isolation_columns_are_never_confused():
    """source_account_id is TEXT with a default, tenant_id a UUID; no policy compares one with the other's variable."""
    text = "".join(path.read_text(encoding="utf-8") for path in UPS)
    apps = re.findall(r"^ +source_account_id ([A-Z].*),$", text, re.MULTILINE)
    tenants = re.findall(r"^ +tenant_id ([A-Z]+)\b|ADD COLUMN tenant_id (\w+)", text, re.MULTILINE)
    assert set(apps) == {"TEXT NOT NULL DEFAULT 'primary'"}
    assert {"".join(pair) for pair in tenants} == {"UUID"}
    assert not re.search(r"source_account_id = \(\s*SELECT[^;]*x-hasura-tenant-id", text)
    assert not re.search(r"tenant_id = \(\s*SELECT[^;]*x-hasura-source-account-id", text)


def seed_directives(path, name):
    """The values of a seed's `+seed:<name>` lines."""
    return re.findall(rf"^(?:--|//) \+seed:{name} (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def seed_files():
    """Every seed by its file name."""
    return {path.name: path for path in sorted(SEEDS.rglob("*.*"))}


def test_seeds_depend_on_seeds_that_are_there_wherever_they_run():
    files = seed_files()
    for path in files.values():
        for name in seed_directives(path, "depends-on"):
            environments = set(",".join(seed_directives(path, "env")).split(","))
            theirs = set(",".join(seed_directives(files[name], "env") or [files[name].parent.name]).split(","))
            assert "all" in theirs or environments <= theirs, f"{path.name} runs where {name} does not"


def structured_fixtures():
    """The fixtures that are data: name -> table -> label -> row."""
    found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FIXTURES.glob("*.yaml")}
    found.update((path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in FIXTURES.glob("*.json"))
    return found


def test_references_of_fixtures_lead_to_rows_of_the_same_file():
    for name, tables in structured_fixtures().items():
        labels = {f"{table}.{label}" for table, rows in tables.items() for label in rows}
        values = [value for rows in tables.values() for row in rows.values() for value in row.values()]
        missing = {value["ref"] for value in values if isinstance(value, dict) and set(value) == {"ref"}} - labels
        assert not missing, f"{name} refers to {missing}"


def test_settings_can_be_read_without_a_server():
    settings = load_settings(project=str(REPOSITORY), environ={})
    assert settings.project_name == "nself-sample"
    assert list(settings.prefixes) == ["np_", "nself_sample_"]


# --- hasura/metadata --------------------------------------------------------------------------------------------------

SECTIONS = {
    "actions.graphql", "actions.yaml", "allow_list.yaml", "api_limits.yaml", "backend_configs.yaml",
    "cron_triggers.yaml", "databases/databases.yaml", "graphql_schema_introspection.yaml", "inherited_roles.yaml",
    "metrics_config.yaml", "network.yaml", "opentelemetry.yaml", "query_collections.yaml", "remote_schemas.yaml",
    "rest_endpoints.yaml", "version.yaml",
}  # fmt: skip


class HasuraDumper(yaml.SafeDumper):
    """YAML as Hasura's own CLI writes it, for what occurs in the sample (reference: its metadata format)."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data):
        return True


def _represent_text(dumper, text):
    style = '"' if text.startswith("!include") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


HasuraDumper.add_representer(str, _represent_text)


def test_metadata_holds_every_section_and_no_orphan():
    listed = set(SECTIONS)
    for folder in ("tables", "functions"):
        base = f"databases/default/{folder}"
        listed.add(f"{base}/{folder}.yaml")
        for include in yaml.safe_load((METADATA / base / f"{folder}.yaml").read_text(encoding="utf-8")):
            listed.add(f"{base}/{include.split(' ', 1)[1]}")
    assert {path.relative_to(METADATA).as_posix() for path in METADATA.rglob("*") if path.is_file()} == listed


@pytest.mark.parametrize("path", sorted(METADATA.rglob("*.yaml")), ids=lambda path: path.name)
def test_metadata_is_written_as_hasura_writes_it(path):
    text = path.read_text(encoding="utf-8")
    written = yaml.dump(
        yaml.safe_load(text), Dumper=HasuraDumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    assert written == text


# --- on a server ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sample(make_project):
    """sample(database) -> a Project that is a copy of the sample, led to `database`, with nothing applied yet."""

    def make(database):
        project = make_project(database)
        shutil.copytree(MIGRATIONS, project.root / "migrations", dirs_exist_ok=True)
        return project

    return make


@pytest.fixture
def seeded(plain_server, make_database, sample):
    """A copy of the sample on a plain server, migrated and seeded, for a test that changes it."""
    project = sample(make_database(plain_server))
    project.run("migrate", "up").ok()
    load_seeds(project.database)
    return project


@pytest.fixture(scope="module")
def shop(plain_server, tmp_path_factory):
    """The Database of the sample, migrated and with the seeds of dev. It is shared: leave it as it was.

    The TypeScript seed is left out: its runner is not this file's matter.
    """
    folder = tmp_path_factory.mktemp("shop")
    database = Database(plain_server, "sample_shop")
    plain_server.drop_database(database.name)
    plain_server.create_database(database.name)
    project = Project(folder / "project", database, Runner(folder))
    shutil.copytree(MIGRATIONS, project.root / "migrations", dirs_exist_ok=True)
    project.run("migrate", "up").ok()
    load_seeds(database)
    yield database
    plain_server.drop_database(database.name)


def snapshot(project):
    """The schema as lines."""
    return [row["line"] for row in project.database.admin(SNAPSHOT)]


def load_seeds(database):
    """Run the SQL and CSV seeds in the order that they declare; a CSV comes after the tenants its rows point at."""
    files = {name: path for name, path in seed_files().items() if path.suffix != ".ts"}
    edges = {name: seed_directives(path, "depends-on") for name, path in files.items()}
    edges["np_products.csv"] = ["tenants.sql"]
    with database.connect(autocommit=False) as connection:
        for name in graphlib.TopologicalSorter(edges).static_order():
            if files[name].suffix == ".csv":
                load_csv(connection, files[name])
            else:
                connection.execute(files[name].read_text(encoding="utf-8"))


def load_csv(connection, path):
    """Fill the table that a CSV seed is named after, leaving rows alone that are there."""
    table = sql.Identifier(path.stem)
    with path.open(encoding="utf-8", newline="") as lines:
        columns = sql.SQL(", ").join(sql.Identifier(name) for name in next(csv.reader(lines)))
    connection.execute(sql.SQL("CREATE TEMP TABLE load (LIKE {} INCLUDING DEFAULTS)").format(table))
    with connection.cursor().copy(sql.SQL("COPY load ({}) FROM STDIN (FORMAT csv, HEADER)").format(columns)) as copy:
        copy.write(path.read_bytes())
    insert = sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM load ON CONFLICT DO NOTHING; DROP TABLE load")
    connection.execute(insert.format(table, columns))


def row_counts(database):
    """table -> rows, of every table in public."""
    names = database.admin("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
    count = sql.SQL("SELECT count(*) AS rows FROM {}")
    return {name["relname"]: database.admin(count.format(sql.Identifier(name["relname"])))[0]["rows"] for name in names}


@pytest.mark.versions
def test_migrations_go_up_and_down_to_nothing_and_up_again(database, sample):
    project = sample(database)
    project.run("migrate", "up").ok()
    full = snapshot(project)
    project.run("migrate", "down", "--count", str(len(UPS)), "--force").ok()
    assert snapshot(project) == []
    project.run("migrate", "up").ok()
    assert snapshot(project) == full


def test_each_down_file_undoes_exactly_its_own_migration(plain_server, make_database, sample):
    project = sample(make_database(plain_server))
    for path in UPS:
        before = snapshot(project)
        project.run("migrate", "up", "--count", "1").ok()
        project.run("migrate", "down", "--force").ok()
        assert snapshot(project) == before, path.name
        project.run("migrate", "up", "--count", "1").ok()


def test_migrations_go_down_over_data(seeded):
    full = snapshot(seeded)
    seeded.run("migrate", "down", "--count", str(len(UPS)), "--force").ok()
    seeded.run("migrate", "up").ok()
    assert snapshot(seeded) == full


def test_posts_from_before_there_were_tenants_get_one(plain_server, make_database, sample):
    project = sample(make_database(plain_server))
    project.run("migrate", "up", "--to", "20240311093000").ok()
    project.database.admin(
        f"""
        INSERT INTO np_accounts (id, email, display_name) VALUES
            ('{ALICE}', 'a@example.com', 'A'), ('{BOB}', 'b@example.com', 'B');
        INSERT INTO np_tenants (id, name) VALUES ('{HARBOUR}', 'Harbour');
        INSERT INTO np_memberships (tenant_id, account_id) VALUES ('{HARBOUR}', '{ALICE}');
        INSERT INTO np_posts (author_id, title, updated_at) VALUES
            ('{ALICE}', 'Member''s', '2024-01-01'), ('{BOB}', 'Stranger''s', '2024-01-01');
        INSERT INTO np_comments (post_id, author_id, body) SELECT id, '{BOB}', title FROM np_posts;
        """
    )
    project.run("migrate", "up").ok()
    rows = project.database.admin(
        "SELECT post.slug, post.tenant_id::text AS of_post, comment.tenant_id::text AS of_comment, post.updated_at "
        "FROM np_posts post JOIN np_comments comment ON comment.post_id = post.id ORDER BY post.slug"
    )
    assert [(row["slug"], row["of_post"], row["of_comment"]) for row in rows] == [
        ("members", HARBOUR, HARBOUR),
        ("strangers", COMMUNITY, COMMUNITY),
    ]
    assert {row["updated_at"].year for row in rows} == {2024}


def test_an_order_follows_its_items_and_payments(shop):
    orders = shop.admin("SELECT status, total_cents FROM np_orders ORDER BY placed_at")
    assert [(order["status"], order["total_cents"]) for order in orders] == [
        ("shipped", 3050), ("paid", 10200), ("refunded", 11600), ("cancelled", 10800), ("pending", 1200),
        ("pending", 2400),
    ]  # fmt: skip


def test_seeds_loaded_twice_are_loaded_once(seeded):
    first = row_counts(seeded.database)
    load_seeds(seeded.database)
    assert row_counts(seeded.database) == first
    assert min(first["np_posts"], first["np_orders"], first["np_products"]) > 0


def test_what_seeds_verify_is_true(shop):
    for path in SEEDS.rglob("*.sql"):
        for statement in seed_directives(path, "verify"):
            assert list(shop.admin(statement)[0].values()) == [True], f"{path.name}: {statement}"


def test_the_sql_fixture_loads_beside_the_seeds(shop):
    with shop.connect(autocommit=False) as connection:
        connection.execute((FIXTURES / "basic-users.sql").read_text(encoding="utf-8"))
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        connection.rollback()


def test_fixtures_name_columns_that_are_there(shop):
    rows = shop.admin(
        "SELECT table_name || '.' || column_name AS name FROM information_schema.columns WHERE table_schema = 'public'"
    )
    known = {row["name"] for row in rows}
    for name, tables in structured_fixtures().items():
        named = {f"{table}.{column}" for table, rows in tables.items() for row in rows.values() for column in row}
        assert named <= known, name


def test_the_metadata_tracks_what_the_migrations_make(shop):
    needed = requirements(read_local_metadata(str(METADATA)).document)
    assert len(needed) > 500
    assert shop.admin(sql_unsatisfied(needed)) == []


# --- row-level security, as a role that it binds ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(shop):
    """The name of an ordinary role, no owner and no superuser, that may do everything with every table."""
    role = sql.Identifier("sample_reader")
    shop.admin(
        sql.SQL(
            "CREATE ROLE {0} NOLOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {0}; "
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {0}"
        ).format(role)
    )
    yield role
    shop.admin(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


@pytest.fixture
def as_user(shop, reader):
    """as_user(statement, before=None, **session) -> rows, asked by `reader` in a session with those x-hasura variables.

    `before` is run first by the owner, who is a superuser. Nothing of it stays.
    """

    def ask(statement, before=None, **session):
        variables = {f"x-hasura-{name.replace('_', '-')}": value for name, value in session.items()}
        with shop.connect(autocommit=False, row_factory=tuple_row) as connection:
            if before:
                connection.execute(before)
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(reader))
            if session:
                connection.execute("SELECT set_config('hasura.user', %s, true)", [json.dumps(variables)])
            rows = connection.execute(statement).fetchall()
            connection.rollback()
            return rows

    return ask


COMMENT = (
    "INSERT INTO np_comments (post_id, author_id, body) "
    f"VALUES ('b0000000-0000-4000-8000-000000000004', '{DAICHI}', 'Seen')"
)
EVENT = (
    "INSERT INTO np_events (account_id, kind, occurred_at) "
    f"VALUES ('{DAICHI}', 'session.started', '2024-05-09 12:00:00+00')"
)
DRAFTS = "SELECT title FROM np_posts WHERE state = 'draft'"


def test_every_table_has_row_level_security(shop):
    rows = shop.admin(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT (relrowsecurity AND relforcerowsecurity)"
    )
    assert rows == []


def test_an_author_sees_their_own_draft(as_user):
    assert as_user(DRAFTS, user_id=BOB, tenant_id=HARBOUR, role="user") == [("Ten novels without a lighthouse",)]


def test_nobody_else_sees_it(as_user):
    assert as_user(DRAFTS, user_id=ELSA, tenant_id=HARBOUR, role="user") == []


def test_the_admin_of_another_tenant_does_not_see_it(as_user):
    assert as_user(DRAFTS, user_id=CHIOMA, tenant_id=ALPINE, role="tenant_admin") == []


def test_a_session_without_variables_sees_what_is_public_and_no_order(as_user):
    assert as_user("SELECT (SELECT count(*) FROM np_posts), (SELECT count(*) FROM np_orders)") == [(6, 0)]


def test_a_buyer_sees_their_orders_and_the_items_and_payments_of_them(as_user):
    counts = (
        "SELECT (SELECT count(*) FROM np_orders), (SELECT count(*) FROM np_order_items), "
        "(SELECT count(*) FROM np_payments)"
    )
    assert as_user(counts, user_id=DAICHI, role="user") == [(3, 4, 3)]


def test_a_tenant_admin_sees_the_orders_of_their_tenant_only(as_user):
    tenants = "SELECT DISTINCT tenant_id::text FROM np_orders"
    assert as_user(tenants, user_id=CHIOMA, tenant_id=ALPINE, role="tenant_admin") == [(ALPINE,)]


def test_the_role_alone_opens_no_tenant(as_user):
    assert as_user("SELECT 1 FROM np_orders", role="tenant_admin") == []


def test_another_app_of_the_deployment_sees_nothing_of_this_one(as_user):
    session = {"user_id": DAICHI, "tenant_id": ALPINE, "role": "admin", "source_account_id": "other-app"}
    counts = "SELECT (SELECT count(*) FROM np_posts) + (SELECT count(*) FROM np_orders) + count(*) FROM np_accounts"
    assert as_user(counts, **session) == [(0,)]


def test_nobody_writes_into_a_tenant_that_is_not_theirs(as_user):
    insert = f"INSERT INTO np_posts (tenant_id, author_id, title) VALUES ('{ALPINE}', '{BOB}', 'Not mine')"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_user(insert, user_id=BOB, tenant_id=HARBOUR, role="user")


def test_nobody_comments_on_a_post_they_cannot_see(as_user):
    insert = (
        "INSERT INTO np_comments (post_id, author_id, body) "
        f"VALUES ('b0000000-0000-4000-8000-000000000003', '{DAICHI}', 'Leaked')"
    )
    with pytest.raises(psycopg.IntegrityError):
        as_user(insert, user_id=DAICHI, role="user")


def test_a_comment_belongs_to_the_tenant_of_its_post(as_user):
    insert = f"{COMMENT} RETURNING tenant_id::text"
    assert as_user(insert, user_id=DAICHI, tenant_id=HARBOUR, role="user") == [(ALPINE,)]


def test_a_comment_reaches_the_inbox_of_the_author(as_user):
    inbox = "SELECT kind, payload ->> 'title' FROM np_notifications"
    assert as_user(inbox, before=COMMENT, user_id=CHIOMA, role="user") == [
        ("comment_added", "How we roast: first crack, second crack")
    ]


def test_events_can_be_added(as_user):
    insert = f"INSERT INTO np_events (account_id, kind) VALUES ('{DAICHI}', 'session.started') RETURNING kind"
    assert as_user(insert, user_id=DAICHI, role="user") == [("session.started",)]


def test_events_can_be_read(as_user):
    assert as_user("SELECT kind FROM np_events", before=EVENT, user_id=DAICHI, role="user") == [("session.started",)]


@pytest.mark.parametrize("change", ["UPDATE np_events SET kind = 'session.ended'", "DELETE FROM np_events"])
def test_events_cannot_be_changed(as_user, change):
    assert as_user(f"{change} RETURNING kind", before=EVENT, user_id=DAICHI, role="user") == []


def test_a_partition_is_no_way_past_the_policies(as_user):
    assert as_user("SELECT 1 FROM np_events_2024_05", before=EVENT, user_id=DAICHI, role="user") == []
