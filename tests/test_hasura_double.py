"""The double of Hasura's engine answers as upstream's server does: its recorded exchanges, and cases of our own."""

from __future__ import annotations

import json

import pytest
import yaml
from bed.hasura_engine import Engine
from bed.hasura_material import reads, recorded, recorded_text

from nself_core import http

SECRET = "admin-s3cret"

OTHER_DATABASE = "it wants a database that is not Postgres (or has the Citus extension), and none is here"
TEMPLATES = "it asks for Kriti templates of webhooks, which no command of nself-db asks the engine for"
OLD_FORM = (
    "upstream runs it no more: its server exports version 3, and one file names a table that its own setup does not"
    " make (what they export is compared below, as version 3)"
)
NOT_REPLAYED = {
    **dict.fromkeys(("setup_mssql", "schema_setup_mssql", "schema_teardown_mssql", "setup_citus", "schema_setup_citus",
                     "schema_teardown_citus", "setup_bigquery", "schema_setup_bigquery", "schema_teardown_bigquery",
                     "set_table_customization_mssql", "set_table_customization_citus",
                     "set_table_customization_bigquery"), OTHER_DATABASE),
    **{f"test_webhook_transform_{case}": TEMPLATES for case in (
        "bad_eval", "bad_parse", "custom_functions", "env_reference_success", "success", "success_form_urlencoded",
        "success_old_body_schema", "success_remove_body",
    )},
    "export_metadata": OLD_FORM,
    "clear_export_metadata": OLD_FORM,
    "pg_add_source_with_parameters": "it names upstream's own server by host, user and password; upstream leaves it "
                                     "out everywhere else",
}  # fmt: skip
# One exchange of a file that is otherwise replayed.
GRAPHQL = "/v1/graphql"  # the double runs no GraphQL: it echoes


FOLDERS = ("server-v1-metadata", "server-v1-metadata_order", "server-v1-run_sql", "server-v1-basic")
EXCHANGES = recorded(*(f"{folder}/**/*.yaml" for folder in FOLDERS))


def stem(file):
    """A recorded file's name without its folder and ending."""
    return file.rpartition("/")[2].partition(".")[0]


AROUND = [file for file in EXCHANGES if stem(file) in ("setup", "teardown")]
REPLAYED = [file for file in EXCHANGES if file not in AROUND and stem(file) not in NOT_REPLAYED]
ORDER = ["server-v1-metadata_order/clear_export_metadata.yaml"]
OLD_EXPORT = ["server-v1-metadata/export_metadata.yaml"]
INCONSISTENT = [f"server-inconsistent_objects/{name}.yaml" for name in ("setup", "expectation", "teardown")]


@pytest.fixture(scope="module")
def databases(plain_server):
    """The names of three databases, emptied before each test by `start`."""
    names = [f"double_{number}" for number in range(3)]
    for name in names:
        plain_server.create_database(name)
    yield names
    for name in names:
        plain_server.drop_database(name)


@pytest.fixture
def start(plain_server, databases):
    """start(**options) -> an Engine over an empty database, with two more that sources can name."""
    engines = []
    for name in databases:
        plain_server.admin("DROP SCHEMA IF EXISTS hdb_catalog CASCADE", name)
        plain_server.admin("DROP SCHEMA public CASCADE", name)
        plain_server.admin("CREATE SCHEMA public", name)

    def make(**options):
        urls = [plain_server.cluster.url(name) for name in databases]
        env = {f"HASURA_GRAPHQL_PG_SOURCE_URL_{number}": urls[number] for number in (1, 2)}
        env.update(HASURA_BIGQUERY_SERVICE_KEY="x", HASURA_BIGQUERY_PROJECT_ID="x")
        engines.append(Engine(urls[0], SECRET, env, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(start):
    """An Engine over an empty database."""
    return start()


def post(engine, path, document, **headers):
    """(status, document) of a request as a client sends it."""
    headers = {"X-Hasura-Admin-Secret": SECRET, **headers}
    answer = http.request("POST", engine.endpoint + path, headers, json.dumps(document).encode())
    return answer.status, json.loads(answer.body)


def metadata(engine, request_type, args=None, **more):
    """The answer to a request of the metadata API that must work."""
    status, answer = post(engine, "/v1/metadata", {"type": request_type, "args": {} if args is None else args, **more})
    assert status == 200, answer
    return answer


def read(file):
    return yaml.safe_load(recorded_text(file).replace("{{REMOTE_SCHEMAS_WEBHOOK_DOMAIN}}", "http://x"))


def prepare(engine, folder):
    setup = f"{folder}/setup.yaml"
    if setup in (*AROUND, *INCONSISTENT):
        status, answer = post(engine, "/v1/query", read(setup))
        assert status == 200, answer


def exchange(engine, wanted):
    """One recorded exchange: the status, and where it is recorded the answer, are upstream's."""
    if wanted["url"] == GRAPHQL:
        return
    status, answer = post(engine, wanted["url"], wanted["query"], **wanted.get("headers", {}))
    assert status == wanted["status"], answer
    if "response" in wanted:
        assert ordered(answer) == ordered(wanted["response"])


def ordered(answer):
    """The answer with its list of inconsistent objects in one order, as upstream's own test compares it."""
    if isinstance(answer, dict) and "inconsistent_objects" in answer:
        return {**answer, "inconsistent_objects": by_name(answer["inconsistent_objects"])}
    return answer


def by_name(objects):
    return sorted(objects, key=lambda item: item["name"])



@reads(REPLAYED)
@pytest.mark.parametrize("file", REPLAYED)
def test_upstreams_recorded_exchanges(engine, file):
    prepare(engine, file.partition("/")[0])
    for each in dict.fromkeys([file.replace("_teardown", "_setup"), file]):
        content = read(each)
        for part in content if isinstance(content, list) else [content]:
            exchange(engine, part)

@reads(AROUND)
@pytest.mark.parametrize("folder", FOLDERS)
def test_upstreams_setup_and_teardown_work(engine, folder):
    prepare(engine, folder)
    status, answer = post(engine, "/v1/query", read(f"{folder}/teardown.yaml"))
    assert status == 200, answer

@reads(ORDER)
def test_upstreams_tables_are_exported_in_its_order(engine):
    prepare(engine, "server-v1-metadata_order")
    clear, changes, wanted = read(ORDER[0])
    exchange(engine, clear)
    exchange(engine, changes)
    assert same_as_version_2(metadata(engine, "export_metadata"), wanted["response"])

@reads(OLD_EXPORT)
def test_upstreams_export_of_relationships_and_computed_fields(engine):
    prepare(engine, "server-v1-metadata")
    wanted = read(OLD_EXPORT[0])["response"]
    wanted["tables"].append({"table": {"schema": "public", "name": "table_to_customize"}})
    assert same_as_version_2(metadata(engine, "export_metadata"), wanted)

@reads(INCONSISTENT)
def test_upstreams_inconsistent_objects(engine):
    prepare(engine, "server-inconsistent_objects")
    sql = {"sql": "DROP TABLE article", "check_metadata_consistency": False}
    status, answer = post(engine, "/v2/query", {"type": "run_sql", "args": sql})
    assert status == 200, answer
    assert metadata(engine, "get_inconsistent_metadata")["is_consistent"]  # the cache was not built again
    metadata(engine, "reload_metadata")
    found = metadata(engine, "get_inconsistent_metadata")["inconsistent_objects"]
    assert by_name(found) == by_name(read("server-inconsistent_objects/expectation.yaml"))
    document = metadata(engine, "export_metadata")
    status, answer = post(engine, "/v1/metadata", {"type": "replace_metadata", "args": document})
    assert (status, answer["error"]) == (400, "cannot continue due to inconsistent metadata")
    metadata(engine, "drop_inconsistent_metadata")
    assert metadata(engine, "get_inconsistent_metadata") == {"is_consistent": True, "inconsistent_objects": []}
    status, answer = post(engine, "/v1/query", read("server-inconsistent_objects/teardown.yaml"))
    assert status == 200, answer


def same_as_version_2(document, recorded):
    """Whether source default of a version 3 document holds what an old export holds at its top."""
    source = dict(document["sources"][0])
    for name in ("name", "kind", "configuration"):
        source.pop(name)
    rest = {name: value for name, value in document.items() if name not in ("version", "sources")}
    old = {name: value for name, value in recorded.items() if name != "version"}
    # The order of the insertion is written since 2.0 only.
    assert json.dumps({**source, **rest}, sort_keys=True).replace('"insertion_order": null, ', "") == json.dumps(
        old, sort_keys=True
    )
    return True


# Cases of our own, for a clone without upstream's: one of each kind of answer.

SCHEMA = """
CREATE TABLE author (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE article (id serial PRIMARY KEY, title text, author_id integer REFERENCES author);
CREATE FUNCTION find_articles(words text) RETURNS SETOF article LANGUAGE sql STABLE AS 'SELECT * FROM article';
"""
AUTHOR = {
    "table": "author",
    "array_relationships": [
        {"name": "articles", "using": {"foreign_key_constraint_on": {"column": "author_id", "table": "article"}}}
    ],
    "select_permissions": [
        {"role": "user", "permission": {"columns": ["id", "name"], "filter": {"id": "X-Hasura-User-Id"}}}
    ],
}
ARTICLE = {
    "table": "article",
    "object_relationships": [{"name": "author", "using": {"foreign_key_constraint_on": "author_id"}}],
}


@pytest.fixture
def blog(engine):
    """An Engine that tracks two tables and a function."""
    run_sql(engine, SCHEMA)
    metadata(engine, "replace_metadata", {"tables": [AUTHOR, ARTICLE], "functions": ["find_articles"]})
    return engine


def run_sql(engine, sql, **args):
    """The answer to a run_sql that must work."""
    status, answer = post(engine, "/v2/query", {"type": "run_sql", "args": {"sql": sql, **args}})
    assert status == 200, answer
    return answer


def refused(engine, path, document, status=400, **headers):
    """The error document of a request that must be refused with this status."""
    found, answer = post(engine, path, document, **headers)
    assert found == status, answer
    return answer


def test_the_export_is_canonical(blog):
    document = metadata(blog, "export_metadata")
    assert [*document] == ["version", "sources"]
    (source,) = document["sources"]
    assert [*source] == ["name", "kind", "tables", "functions", "configuration"]
    assert [entry["table"]["name"] for entry in source["tables"]] == ["article", "author"]
    assert [*source["tables"][1]] == ["table", "array_relationships", "select_permissions"]


def test_what_is_exported_can_be_put_back(blog):
    found = metadata(blog, "export_metadata", version=2)
    answer = metadata(blog, "replace_metadata", {"metadata": found["metadata"]}, version=2,
                      resource_version=found["resource_version"])  # fmt: skip
    assert answer == {"is_consistent": True, "inconsistent_objects": []}
    again = metadata(blog, "export_metadata", version=2)
    assert again == {"resource_version": found["resource_version"] + 1, "metadata": found["metadata"]}


@pytest.mark.parametrize("request_type", ["replace_metadata", "reload_metadata", "clear_metadata"])
def test_another_resource_version_is_a_conflict(blog, request_type):
    found = metadata(blog, "export_metadata", version=2)
    args = {"metadata": found["metadata"]} if request_type == "replace_metadata" else {}
    number = found["resource_version"] - 1
    answer = refused(blog, "/v1/metadata", {"type": request_type, "args": args, "resource_version": number}, 409)
    said = f"metadata resource version referenced ({number}) did not match current version"
    assert answer == {"path": "$", "error": said, "code": "conflict"}
    assert metadata(blog, "export_metadata", version=2) == found


def test_every_change_is_one_version_more(blog):
    before = metadata(blog, "export_metadata", version=2)["resource_version"]
    metadata(blog, "reload_metadata")
    metadata(blog, "pg_untrack_function", {"function": "find_articles"})
    metadata(blog, "get_inconsistent_metadata")
    assert metadata(blog, "export_metadata", version=2)["resource_version"] == before + 2


def test_inconsistent_metadata_is_refused_unless_allowed(blog):
    before = metadata(blog, "export_metadata", version=2)
    document = {"version": 3, "sources": [{**before["metadata"]["sources"][0], "tables": [{"table": "lost"}, ARTICLE]}]}
    answer = refused(blog, "/v1/metadata", {"type": "replace_metadata", "args": {"metadata": document}, "version": 2})
    assert (answer["error"], answer["code"]) == ("cannot continue due to inconsistent metadata", "unexpected")
    assert [item["name"] for item in answer["internal"]] == [
        "table lost in source default", "object_relation author in table article in source default",
    ]  # fmt: skip
    assert metadata(blog, "export_metadata", version=2) == before
    args = {"metadata": document, "allow_inconsistent_metadata": True}
    answer = metadata(blog, "replace_metadata", args, version=2)
    assert not answer["is_consistent"] and len(answer["inconsistent_objects"]) == 2
    assert metadata(blog, "get_inconsistent_metadata") == answer


def test_ddl_behind_its_back_is_seen_by_reload(blog):
    run_sql(blog, "DROP TABLE article CASCADE", check_metadata_consistency=False)
    assert metadata(blog, "get_inconsistent_metadata")["is_consistent"]
    answer = metadata(blog, "reload_metadata")
    assert answer["message"] == "success" and not answer["is_consistent"]
    reasons = [item["reason"] for item in answer["inconsistent_objects"]]
    assert 'Inconsistent object: no such table/view exists in source: "article"' in reasons
    assert 'Inconsistent object: in function "find_articles": no such function exists: "find_articles"' in reasons


def test_a_permission_names_the_column_that_is_missing(blog):
    run_sql(blog, "ALTER TABLE author DROP COLUMN name", check_metadata_consistency=False)
    (found,) = metadata(blog, "reload_metadata")["inconsistent_objects"]
    assert found["reason"] == (
        'Inconsistent object: in table "author": in permission for role "user": "name" does not exist'
    )
    assert found["name"] == "select_permission user in table author in source default"


def test_ddl_that_breaks_metadata_is_refused_without_cascade(blog):
    answer = refused(blog, "/v2/query", {"type": "run_sql", "args": {"sql": "ALTER TABLE author DROP COLUMN name"}})
    assert answer["code"] == "dependency-error"
    run_sql(blog, "ALTER TABLE author DROP COLUMN name", cascade=True)
    assert "select_permissions" not in json.dumps(metadata(blog, "export_metadata"))


@pytest.mark.parametrize(("headers", "said"), [
    ({"X-Hasura-Admin-Secret": "wrong"}, 'invalid "x-hasura-admin-secret"/"x-hasura-access-key"'),
    ({"X-Hasura-Admin-Secret": "null"}, 'invalid "x-hasura-admin-secret"/"x-hasura-access-key"'),
])  # fmt: skip
def test_a_wrong_secret_is_401(engine, headers, said):
    answer = refused(engine, "/v1/metadata", {"type": "export_metadata", "args": {}}, 401, **headers)
    assert answer == {"path": "$", "error": said, "code": "access-denied"}


def test_another_role_is_refused(engine):
    answer = refused(engine, "/v1/metadata", {"type": "clear_metadata", "args": {}}, **{"X-Hasura-Role": "user"})
    assert answer == {"path": "$.args", "error": "restricted access : admin only", "code": "access-denied"}


@pytest.mark.parametrize(("body", "path"), [
    (b"{", "$"), (b'"text"', "$"), (b'{"type": "export_metadata"}', "$"),
    (b'{"type": "random", "args": {}}', "$.type"),
    (b'{"type": "export_metadata", "version": 3, "args": {}}', "$.version"),
])  # fmt: skip
def test_what_is_no_request_is_400(engine, body, path):
    answer = http.request("POST", engine.endpoint + "/v1/metadata", {"X-Hasura-Admin-Secret": SECRET}, body)
    assert (answer.status, json.loads(answer.body)["path"]) == (400, path)


def test_health_says_what_is_inconsistent(blog):
    assert http.request("GET", blog.endpoint + "/healthz").body == b"OK"
    run_sql(blog, "DROP FUNCTION find_articles", check_metadata_consistency=False)
    metadata(blog, "reload_metadata")
    said = http.request("GET", blog.endpoint + "/healthz")
    assert (said.status, said.body) == (200, b"WARN: inconsistent objects in schema")
    assert http.request("GET", blog.endpoint + "/healthz?strict=true").status == 500


def test_the_states_of_the_tools_are_kept(engine):
    state = {"migrations": {"default": {"1": False}}}
    metadata(engine, "set_catalog_state", {"type": "cli", "state": state})
    assert metadata(engine, "get_catalog_state")["cli_state"] == state
    assert engine.ask("set_catalog_state", {"type": "other", "state": {}})[0] == 400


def test_a_bulk_is_all_or_nothing(blog):
    before = metadata(blog, "export_metadata", version=2)
    requests = [{"type": "pg_untrack_function", "args": {"function": "find_articles"}},
                {"type": "pg_track_table", "args": {"table": "lost"}}]  # fmt: skip
    answer = refused(blog, "/v1/metadata", {"type": "bulk", "args": requests})
    assert answer["path"] == "$.args[1].args"
    assert metadata(blog, "export_metadata", version=2) == before
    answers = metadata(blog, "bulk_keep_going", requests)
    assert answers[0] == {"message": "success"} and answers[1]["code"] == "invalid-configuration"


def test_the_stored_tables_are_upstreams(engine, databases, plain_server):
    rows = plain_server.admin(
        "SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) AS columns"
        " FROM information_schema.columns WHERE table_schema = 'hdb_catalog' GROUP BY 1 ORDER BY 1", databases[0]
    )  # fmt: skip
    assert [tuple(row.values()) for row in rows] == [
        ("hdb_metadata", "id metadata resource_version"),
        ("hdb_version", "hasura_uuid version upgraded_on cli_state console_state ee_client_id ee_client_secret"),
    ]
