"""Settings: where a project lies, which environment is meant, what a setting says and where it comes from."""

from __future__ import annotations

import os

import pytest

from nself_core.environments import find_root
from nself_core.failures import CredentialsRefused, FileFailure, Refused, UsageFailure
from nself_core.settings import load_settings


@pytest.fixture
def root(tmp_path):
    """A project's folder, named my-shop."""
    folder = tmp_path / "my-shop"
    (folder / "migrations").mkdir(parents=True)
    return folder


@pytest.fixture
def load(root):
    """A function that writes env files (name -> text) into the project and loads its settings."""

    def write_and_load(files=(), env=None, url=None, **environ):
        for name, text in dict(files).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return load_settings(None, env, url, environ, str(root))

    return write_and_load


# The root.


@pytest.mark.parametrize("mark", ["migrations/", "hasura/", "docker-compose.yml", ".env", ".env.dev"])
def test_the_root_is_the_nearest_folder_upward_with_a_mark(tmp_path, mark):
    path = tmp_path / "app" / mark
    path.parent.mkdir()
    path.mkdir() if mark.endswith("/") else path.write_text("")
    inside = tmp_path / "app" / "src" / "deep"
    inside.mkdir(parents=True)
    assert find_root(None, str(inside)) == str(tmp_path / "app")


def test_a_nearer_root_wins(root):
    inner = root / "packages" / "api"
    (inner / "hasura").mkdir(parents=True)
    assert find_root(None, str(inner)) == str(inner)


def test_a_file_called_migrations_is_no_mark(root):
    inner = root / "inner"
    inner.mkdir()
    (inner / "migrations").write_text("")
    assert find_root(None, str(inner)) == str(root)


def test_outside_of_a_project_there_is_a_hint():
    with pytest.raises(UsageFailure, match="no project here") as caught:
        find_root(None, "/")
    assert "--project" in caught.value.hint


def test_project_names_the_root_whatever_it_holds(tmp_path):
    (tmp_path / "empty").mkdir()
    assert find_root("empty", str(tmp_path)) == str(tmp_path / "empty")


@pytest.mark.parametrize("name", ["nowhere", "", "my-shop/file"])
def test_project_must_be_a_folder(tmp_path, root, name):
    (root / "file").write_text("")
    with pytest.raises(UsageFailure, match="is not a folder"):
        find_root(name, str(tmp_path))


def test_a_working_directory_that_is_gone_is_named(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageFailure, match="no longer exists"):
        find_root()


# The active environment.


def test_dev_is_active_when_nobody_says_otherwise(load):
    assert load().env == "dev"


def test_a_project_without_any_env_file_is_fine(load):
    assert load().layers == []


def test_who_names_the_environment(load):
    files = {".env": "ENV=one", ".env.one": "", ".env.two": "", ".env.three": "", ".env.four": "", ".env.five": ""}
    assert load(files).env == "one"
    assert load({".env.local": "ENV=two"}).env == "two"
    assert load(ENV="three").env == "three"
    assert load(ENV="three", NSELF_ENV="four").env == "four"
    assert load(ENV="three", NSELF_ENV="four", env="five").env == "five"


@pytest.mark.parametrize(
    ("alias", "name"),
    [("development", "dev"), ("develop", "dev"), ("local", "dev"), ("stage", "staging"), ("production", "prod")],
)
def test_aliases(load, alias, name):
    files = {".env.staging": "", ".env.prod": ""}
    assert load(files, env=alias).env == name
    assert load(NSELF_ENV=alias).env == name


@pytest.mark.parametrize("name", ["", "Prod", "../prod", "a/b", "a b", "-x", "ä", "prod\n", "x" * 64, "secrets"])
def test_what_is_no_name_of_an_environment_is_refused(load, name):
    with pytest.raises(UsageFailure, match=r"is not the name of an environment \(from --env\)"):
        load(env=name)


def test_a_shell_whose_ENV_is_a_file_is_told_so(load):
    with pytest.raises(UsageFailure, match=r"'/etc/shrc' is not the name of an environment \(from ENV\)"):
        load(ENV="/etc/shrc")


def test_an_unknown_environment_is_an_error_that_lists_those_there_are(load):
    with pytest.raises(UsageFailure, match="there is no environment qa") as caught:
        load({".env.prod": "", ".env.example": "", ".env.secrets": "", ".environments/eu/.env": ""}, env="qa")
    assert caught.value.hint == "make .env.qa, or choose another with --env: dev, eu, prod"


def test_a_mistyped_ENV_line_is_an_error(load):
    with pytest.raises(UsageFailure, match="there is no environment prdo"):
        load({".env": "ENV=prdo"})


@pytest.mark.parametrize("file", [".env.qa", ".environments/qa/.env", ".environments/qa/.env.secrets"])
def test_a_file_of_its_own_makes_an_environment(load, file):
    assert load({file: ""}, env="qa").env == "qa"


def test_staging_without_anything_of_its_own_would_be_another_environments_server(load):
    with pytest.raises(UsageFailure, match="there is no environment staging"):
        load({".env": "POSTGRES_DB=x"}, env="staging")


@pytest.mark.parametrize(
    ("files", "environ"),
    [
        ({".env": "ENV=staging"}, {}),
        ({".env": "NSELF_DEPLOY_HOST_STAGING=me@host"}, {}),
        ({}, {"NSELF_DB_URL": "postgres://host/db"}),
        ({}, {"NSELF_DB_ENGINE": "embedded"}),
        ({}, {"NSELF_DB_CONTAINER": "stage_db"}),
    ],
)
def test_staging_needs_no_file_where_its_server_is_named(load, files, environ):
    assert load(files, env="staging", **environ).env == "staging"


def test_prod_needs_no_file_on_a_host_that_says_it_is_prod(load):
    assert load(NSELF_ENV="prod").is_prod


def test_only_prod_is_prod(load):
    assert not load({".env.production-eu": ""}, env="production-eu").is_prod


# The cascade.

CASCADE = [
    ".env",
    ".env.dev",
    ".environments/dev/.env",
    ".env.secrets",
    ".environments/dev/.env.secrets",
    ".env.local",
]


@pytest.mark.parametrize("number", range(len(CASCADE)))
def test_a_later_file_wins(load, number):
    settings = load({file: f"A={file}\n" for file in CASCADE[: number + 1]})
    assert (settings.get("A"), settings.source("A")) == (CASCADE[number], CASCADE[number])


def test_the_process_environment_wins_over_all_files(load):
    settings = load({file: f"A={file}\n" for file in CASCADE}, A="here")
    assert (settings.get("A"), settings.source("A")) == ("here", "process environment")


def test_env_local_is_for_dev_only(load):
    assert load({".env.local": "A=1", ".env.prod": "A=2"}, env="prod").get("A") == "2"


def test_another_environments_files_are_not_read(load):
    assert load({".env.prod": "what is this?", ".env.dev": "A=1"}).get("A") == "1"


def test_an_empty_value_counts_as_unset(load):
    settings = load({".env": "A=\n"})
    assert (settings.get("A", "default value"), settings.source("A")) == ("default value", "default")


def test_an_empty_value_takes_an_earlier_one_away(load):
    assert load({".env": "A=1\nB=2\n", ".env.dev": "A=\n"}, B="").get("A") is None
    assert load(B="").get("B") is None


def test_a_file_may_refer_to_the_files_before_it(load):
    settings = load({".env": "NAME=shop\n", ".env.dev": "A=${NAME}_db\n", ".env.local": "B=$A$NAME\n"})
    assert (settings.get("A"), settings.get("B")) == ("shop_db", "shop_dbshop")


def test_a_bad_line_is_named_as_the_user_would_write_it(load, root):
    (root / "src").mkdir()
    (root / ".env.dev").write_text("A=1\noops!\n")
    with pytest.raises(FileFailure) as caught:
        load_settings(environ={}, cwd=str(root / "src"))
    assert caught.value.place == os.path.join("..", ".env.dev") + ":2"


def test_a_file_far_away_is_named_in_full(load, root, tmp_path):
    (root / ".env.dev").write_text("oops!\n")
    with pytest.raises(FileFailure) as caught:
        load_settings(str(root), environ={}, cwd="/usr/lib/x")
    assert caught.value.file == str(root / ".env.dev")


def test_a_file_that_cannot_be_read_is_named(load, root):
    if os.path.exists("/proc/self/mem"):
        (root / ".env").symlink_to("/proc/self/mem")  # not even root reads its first byte
    else:
        (root / ".env").touch(0o000)
    with pytest.raises(FileFailure, match="cannot be read"):
        load()


# --env against the process environment.


def test_two_servers_for_one_environment_are_refused(load):
    with pytest.raises(Refused) as caught:
        load({".env.prod": "NSELF_DB_URL=postgres://me:hunter22@prod/db"}, "prod", NSELF_DB_URL="postgres://here/db")
    assert caught.value.exit_code == 4
    assert caught.value.message == (
        "--env prod means NSELF_DB_URL=postgres://me:********@prod/db, "
        "but the process environment says NSELF_DB_URL=postgres://here/db"
    )
    assert caught.value.hint == "unset NSELF_DB_URL, or say with --url which server is meant"


@pytest.mark.parametrize(
    "name",
    [
        "NSELF_DB_URL",
        "NSELF_DB_CONTAINER",
        "NSELF_DB_ENGINE",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "PROJECT_NAME",
        "POSTGRES_DB",
        "POSTGRES_PORT",
        "HASURA_GRAPHQL_ENDPOINT",
    ],
)
@pytest.mark.parametrize("file", [".env.staging", ".environments/staging/.env", ".environments/staging/.env.secrets"])
def test_each_setting_that_names_a_server_counts_in_each_file_of_the_environment(load, name, file):
    with pytest.raises(Refused, match=f"--env staging means {name}=one"):
        load({file: f"{name}=one"}, "staging", **{name: "two"})


def test_the_same_server_said_twice_is_fine(load):
    files = {".env.prod": "NSELF_DB_URL=postgres://me:old-password@prod/db"}
    assert load(files, "prod", NSELF_DB_URL="postgres://me:new-password@prod/db").env == "prod"


def test_url_says_which_server_is_meant(load):
    files = {".env.prod": "NSELF_DB_URL=postgres://prod/db"}
    settings = load(files, "prod", "postgres://third/db", NSELF_DB_URL="postgres://here/db")
    assert (settings.get("NSELF_DB_URL"), settings.source("NSELF_DB_URL")) == ("postgres://third/db", "--url")


def test_without_env_the_process_environment_just_wins(load):
    settings = load({".env.dev": "NSELF_DB_URL=postgres://dev/db"}, NSELF_DB_URL="postgres://here/db")
    assert settings.get("NSELF_DB_URL") == "postgres://here/db"


def test_the_common_files_name_no_environments_server(load):
    files = {".env": "NSELF_DB_URL=postgres://common/db", ".env.prod": ""}
    assert load(files, "prod", NSELF_DB_URL="postgres://here/db").get("NSELF_DB_URL") == "postgres://here/db"


def test_the_common_file_is_an_environments_own_where_it_says_so(load):
    files = {".env": "ENV=prod\nNSELF_DB_URL=postgres://prod/db"}
    with pytest.raises(Refused):
        load(files, "prod", NSELF_DB_URL="postgres://here/db")


@pytest.mark.parametrize("other", [{"NSELF_DB_URL": "postgres://here/db"}, {"NSELF_DB_ENGINE": "embedded"}])
@pytest.mark.parametrize("line", ["NSELF_DB_CONTAINER=prod_db", "DOCKER_HOST=ssh://prod", "DOCKER_CONTEXT=prod"])
def test_what_would_win_over_the_environments_container_is_refused(load, line, other):
    with pytest.raises(Refused, match="--env prod means"):
        load({".env.prod": line}, "prod", **other)


def test_a_url_of_the_environment_wins_over_containers(load):
    files = {".env.prod": "NSELF_DB_URL=postgres://prod/db\nDOCKER_HOST=ssh://prod"}
    assert load(files, "prod", NSELF_DB_ENGINE="embedded", NSELF_DB_CONTAINER="x").env == "prod"


@pytest.mark.parametrize("other", [{"DOCKER_HOST": "unix:///run/docker.sock"}, {"DOCKER_CONTEXT": "rootless"}])
def test_a_docker_that_the_shell_chose_is_not_the_deploy_host(load, other):
    with pytest.raises(Refused, match="NSELF_DEPLOY_HOST_PROD=ssh://me@host"):
        load({".env": "NSELF_DEPLOY_HOST_PROD=me@host"}, "prod", **other)


def test_an_empty_url_is_not_left_out_in_silence(load):
    with pytest.raises(UsageFailure, match="--url is empty"):
        load(url="")


# Single settings.


def test_require_gives_the_value(load):
    assert load(STORAGE_BUCKET="b").require("STORAGE_BUCKET") == "b"


def test_a_missing_secret_is_a_missing_credential(load):
    with pytest.raises(CredentialsRefused, match="POSTGRES_PASSWORD is not set") as caught:
        load().require("POSTGRES_PASSWORD")
    assert caught.value.exit_code == 3


def test_any_other_missing_setting_is_wrong_usage(load):
    with pytest.raises(UsageFailure, match="STORAGE_BUCKET is not set") as caught:
        load().require("STORAGE_BUCKET")
    assert caught.value.hint == "set it in .env.dev or in the environment"


def test_require_takes_a_hint(load):
    with pytest.raises(UsageFailure) as caught:
        load().require("STORAGE_BUCKET", "make a bucket first")
    assert caught.value.hint == "make a bucket first"


def test_integers(load):
    assert load(PGBOUNCER_PORT="6432").integer("PGBOUNCER_PORT", 1) == 6432
    assert load().integer("PGBOUNCER_PORT", 1) == 1


@pytest.mark.parametrize("text", ["x", "1.5", "-1", "0x10", "1_000", "٣", "9" * 30])
def test_what_is_no_integer_is_named_with_its_place(load, text):
    with pytest.raises(UsageFailure, match=r"HASURA_PORT is not a whole number \(from .env\)"):
        load({".env": f"HASURA_PORT={text}"}).integer("HASURA_PORT")


def test_paths_are_taken_from_the_root(load, root, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert load().path("SEEDS_DIR", "seeds") == str(root / "seeds")
    assert load(SEEDS_DIR="../x").path("SEEDS_DIR", "seeds") == str(root.parent / "x")
    assert load(SEEDS_DIR="/srv/x").path("SEEDS_DIR", "seeds") == "/srv/x"
    assert load(SEEDS_DIR="~/x").path("SEEDS_DIR", "seeds") == "/home/me/x"


# What the program's parts ask for.


@pytest.mark.parametrize(
    ("folder", "name"), [("My Shop_2", "my-shop-2"), ("shop", "shop"), (".hidden", "hidden"), ("日本", "nself")]
)
def test_the_projects_name_is_its_folders_by_default(tmp_path, folder, name):
    (tmp_path / folder).mkdir()
    assert load_settings(str(tmp_path / folder), environ={}).project_name == name


def test_the_projects_name_can_be_set(load):
    assert load({".env": "PROJECT_NAME=nself_Family"}).project_name == "nself_Family"


@pytest.mark.parametrize("name", ["-x", "a b", "a/b", "x;y", "--privileged"])
def test_a_name_that_no_container_can_have_is_refused(load, name):
    with pytest.raises(UsageFailure, match="PROJECT_NAME .* is not a name"):
        _ = load(PROJECT_NAME=name).project_name


def test_database_and_user(load):
    assert (load().database_name, load().database_user) == ("my_shop", "postgres")
    settings = load(POSTGRES_DB="app", POSTGRES_USER="owner")
    assert (settings.database_name, settings.database_user) == ("app", "owner")


def test_the_prefixes_of_managed_tables(load):
    assert load().prefixes == ("np_", "my_shop_")
    assert load(NSELF_TABLE_PREFIXES=" a_, b_ ,,a_").prefixes == ("a_", "b_")
    assert load(NSELF_TABLE_PREFIXES=" , ").prefixes == ("np_", "my_shop_")


def test_migrations_lie_in_migrations(load, root):
    (root / "hasura" / "migrations" / "default").mkdir(parents=True)
    assert load().migrations_folders == (str(root / "migrations"),)


@pytest.mark.parametrize("folder", ["hasura/migrations/default", "hasura/migrations"])
def test_without_migrations_they_lie_where_hasura_puts_them(load, root, folder):
    (root / "migrations").rmdir()
    (root / folder).mkdir(parents=True)
    assert load().migrations_folders == (str(root / folder),)


def test_with_neither_they_will_lie_in_migrations(load, root):
    (root / "migrations").rmdir()
    (root / ".env").write_text("")
    assert load().migrations_folders == (str(root / "migrations"),)


def test_the_folder_of_migrations_can_be_set(load, root):
    assert load(MIGRATIONS_DIR="db/changes").migrations_folders == (str(root / "db" / "changes"),)


def test_docker_host_is_as_docker_reads_it_and_may_stand_in_a_file(load):
    assert load().docker_host is None
    assert load({".env": "DOCKER_HOST=tcp://file:2375"}).docker_host == "tcp://file:2375"
    assert load(DOCKER_HOST="unix:///x").docker_host == "unix:///x"


@pytest.mark.parametrize("host", ["me@host", "ssh://me@host"])
def test_a_deploy_host_is_a_docker_host(load, host):
    settings = load({".env": f"NSELF_DEPLOY_HOST_STAGING={host}"}, "staging")
    assert settings.docker_host == settings.get("DOCKER_HOST") == "ssh://me@host"
    assert settings.source("DOCKER_HOST") == "NSELF_DEPLOY_HOST_STAGING (.env)"


def test_a_deploy_host_is_for_its_own_environment(load):
    assert load({".env": "NSELF_DEPLOY_HOST_STAGING=me@host"}).docker_host is None


@pytest.mark.parametrize("line", ["DOCKER_HOST=tcp://other", "DOCKER_CONTEXT=other"])
def test_what_docker_is_told_wins_over_the_deploy_host(load, line):
    settings = load({".env": f"NSELF_DEPLOY_HOST_PROD=me@host\n{line}", ".env.prod": ""}, "prod")
    assert settings.docker_host in ("tcp://other", None)


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "me@host;x", "me@-x", "$(x)"])
def test_a_deploy_host_that_is_none_is_refused(load, host):
    with pytest.raises(UsageFailure, match="NSELF_DEPLOY_HOST_PROD is not user@host"):
        _ = load({".env": f"NSELF_DEPLOY_HOST_PROD='{host}'", ".env.prod": ""}, "prod", "postgres://x/y").docker_host


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, "http://localhost:8080"),
        ({"HASURA_PORT": "8081"}, "http://localhost:8081"),
        ({"HASURA_GRAPHQL_ENDPOINT": "https://api.shop.test/"}, "https://api.shop.test"),
        ({"HASURA_GRAPHQL_ENDPOINT": "https://api.shop.test/v1/graphql"}, "https://api.shop.test"),
        ({"HASURA_GRAPHQL_ENDPOINT": "http://h:1/sub/v1/metadata/"}, "http://h:1/sub"),
    ],
)
def test_where_hasura_is(load, environ, endpoint):
    assert load(**environ).hasura_endpoint == endpoint


@pytest.mark.parametrize("text", ["localhost:8080", "file:///etc/passwd", "http://", "http:///x"])
def test_an_endpoint_that_is_no_address_is_refused(load, text):
    with pytest.raises(UsageFailure, match="HASURA_GRAPHQL_ENDPOINT is not an http address"):
        _ = load(HASURA_GRAPHQL_ENDPOINT=text).hasura_endpoint


def test_the_admin_secret_has_two_names(load):
    assert load().hasura_admin_secret is None
    assert load(HASURA_ADMIN_SECRET="two").hasura_admin_secret == "two"
    assert load(HASURA_ADMIN_SECRET="two", HASURA_GRAPHQL_ADMIN_SECRET="one").hasura_admin_secret == "one"


def test_DATABASE_URL_is_not_read(load):
    assert load(DATABASE_URL="postgres://postgres:5432/x").get("NSELF_DB_URL") is None


# Another environment of the same project.


def test_another_environment_can_be_loaded(load):
    settings = load({".env.dev": "POSTGRES_DB=one", ".env.prod": "POSTGRES_DB=two"})
    assert [settings.database_name, settings.for_env("production").database_name] == ["one", "two"]


def test_the_other_environment_does_not_inherit_the_url(load):
    settings = load({".env.prod": ""}, url="postgres://dev/db")
    assert settings.for_env("prod").get("NSELF_DB_URL") is None


def test_the_environment_that_is_active_without_env_is_known(load):
    settings = load({".env.prod": "", ".env": "ENV=stage"}, env="prod")
    assert (settings.env, settings.active_env) == ("prod", "staging")


def test_the_active_environment_takes_its_server_from_the_process_environment(load):
    settings = load(
        {".env.dev": "NSELF_DB_URL=postgres://dev/db", ".env.prod": ""}, "prod", NSELF_DB_URL="postgres://x/y"
    )
    assert settings.for_env("dev").get("NSELF_DB_URL") == "postgres://x/y"


def test_a_named_environment_never_takes_another_server(load):
    settings = load({".env.prod": "NSELF_DB_URL=postgres://prod/db"}, NSELF_DB_URL="postgres://here/db")
    with pytest.raises(Refused):
        settings.for_env("prod")


# Secrets, and what may be shown.


@pytest.mark.parametrize(
    "name",
    [
        "POSTGRES_PASSWORD",
        "PGPASSWORD",
        "HASURA_GRAPHQL_ADMIN_SECRET",
        "HASURA_GRAPHQL_JWT_SECRET",
        "S3_SECRET_KEY",
        "BACKUP_S3_SECRET_ACCESS_KEY",
        "S3_ACCESS_KEY",
        "GITHUB_TOKEN",
    ],
)
def test_secrets_are_known_by_their_names_wherever_they_are(load, name):
    assert load({".env": f"{name}=hunter22"}).secrets == ("hunter22",)
    assert "hunter33" in load(**{name: "hunter33"}).secrets


@pytest.mark.parametrize(
    "name", ["HASURA_JWT_KEY_TYPE", "SSL_KEY_FILE", "PGPASSFILE", "AUTH_PASSWORD_MIN_LENGTH", "KEYS"]
)
def test_what_only_sounds_like_a_secret_is_none(load, name):
    assert load({".env": f"{name}=hunter22"}).secrets == ()


def test_passwords_in_urls_are_secrets_as_written_and_as_meant(load):
    settings = load({".env": "REDIS_URL=redis://:p%40ssword@redis:6379"}, url="postgres://me:hunter22@host/db")
    assert settings.secrets == ("p%40ssword", "p@ssword", "hunter22")


def test_the_key_inside_a_jwt_secret_is_a_secret(load):
    secret = '{"type":"HS256","key":"sign-me-please"}'
    assert load({".env": f"HASURA_GRAPHQL_JWT_SECRET='{secret}'"}).secrets == (secret, "sign-me-please")


def test_a_value_that_a_later_file_replaced_is_still_secret(load):
    assert load({".env": "A_SECRET=first-one", ".env.dev": "A_SECRET=second-one"}).secrets == (
        "first-one",
        "second-one",
    )


@pytest.mark.parametrize("password", ["postgres", "my-shop", "my_shop", "MY-SHOP", "shop", "true", "abc"])
def test_a_password_that_is_a_public_word_cannot_be_hidden(load, password):
    assert load({".env": f"POSTGRES_DB=my_shop\nPOSTGRES_PASSWORD={password}\nPOSTGRES_USER=postgres"}).secrets == ()


def test_secrets_are_known_even_where_another_setting_is_wrong(load):
    assert load({".env": "PROJECT_NAME=--x\nA_SECRET=hunter22"}).secrets == ("hunter22",)


def test_verbose_shows_where_each_setting_comes_from(load, root):
    files = {
        ".env": "POSTGRES_DB=app\nPOSTGRES_PASSWORD=hunter22\nSMTP_HOST=mail\n",
        ".env.dev": "NSELF_DB_URL=postgres://me:hunter22@$WHERE/app\nBACKUP_DIR=\n",
    }
    assert load(files, HASURA_PORT="81", PATH="/bin").describe() == [
        ("project", str(root), "folder"),
        ("environment", "dev", "default"),
        ("file", ".env", "read"),
        ("file", ".env.dev", "read"),
        ("HASURA_PORT", "81", "process environment"),
        ("NSELF_DB_URL", "postgres://me:********@/app", ".env.dev (refers to WHERE, which nothing sets)"),
        ("POSTGRES_DB", "app", ".env"),
        ("POSTGRES_PASSWORD", "********", ".env"),
    ]


def test_verbose_shows_the_url_that_was_given(load):
    rows = load(url="postgres://me:hunter22@host/app").describe()
    assert rows[-1] == ("NSELF_DB_URL", "postgres://me:********@host/app", "--url")
