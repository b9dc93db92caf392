"""The database of the active environment: asked for rows, for a session, for a client program.

A command opens one session and does everything in it, because a `docker exec` costs about 100 ms.
"""

from __future__ import annotations

import os
import time

from nself_core.failures import Refused, Unreachable
from nself_core.postgres.errors import connection_failure, failure_of
from nself_core.postgres.reach import Login, find_reach
from nself_core.postgres.session import ConnectionLost, StatementFailed
from nself_core.redaction import shown_text

# What every session of ours sets at connection. The lexer and the server must read quotes alike.
PARAMETERS = {"lock_timeout": "5s", "standard_conforming_strings": "on"}
NO_PARAMETERS: dict = {}

# Whether the server session has what we gave it at connection. A pooler, which gives us a session that it has made for
# somebody, drops it or sets it later (pg_settings, "source").
SQL_HELD = (
    "SELECT source = 'client' AS held, pg_catalog.pg_backend_pid() AS pid FROM pg_catalog.pg_settings "
    "WHERE name = 'lock_timeout'"
)
POOLER_ROUNDS = 20  # each shows a shared session unless other clients take it in just this moment
OWN_LOGIN = Login()
CONNECT_SECONDS = 10
# What the server calls a session's own process.
SQL_PROCESS = (
    "SELECT pid, backend_start::pg_catalog.text AS started FROM pg_catalog.pg_stat_activity "
    "WHERE pid = pg_catalog.pg_backend_pid()"
)


class Database:
    """The server and database that the settings name.

    Arguments: `settings`; `command`, the command's path, for application_name; `on_statement(text)`, called with
    each statement of a file as it begins; `driver` for a URL. Nothing is connected before the first question.
    `keeps_parameters` says whether the last session has its settings for good, which it has not behind a pooler.
    """

    def __init__(self, settings, command, on_statement=None, driver=None):
        self.settings = settings
        self.application = f"nself-db {command}"[:63]
        self.on_statement = on_statement
        self._driver = driver
        self._reach = None
        self._session = None
        self._begun = None  # a session and its first question, while nobody waits for them
        self._ahead = None  # a session, the question that `ask_first` has put to it, and its answer
        self._startup_options = True
        self._parameters = NO_PARAMETERS
        self._own_sessions = set()
        self.keeps_parameters = True
        self.shows_own = False  # whether `execute` shows its texts: in another database nothing else would say them
        self.patience = None  # seconds for a server to answer, where not to know is better than to wait

    @property
    def reach(self):
        """The way to the server; looked for once."""
        if self._reach is None:
            self._reach = find_reach(self.settings, self._driver)
        return self._reach

    def sibling(self, name, parameters=NO_PARAMETERS):
        """Another database of the same server, with a session of its own.

        Argument: `parameters`, server settings by name for all its sessions and programs, beside those of this one.
        """
        other = Database(self.settings, "", self.on_statement, self._driver)
        other.application = self.application
        other.shows_own = True
        other._reach = self.reach.for_database(name)
        other._parameters = {**self._parameters, **parameters}
        return other

    @property
    def where(self):
        """The place in words, without secrets: host or container, and database."""
        return self.reach.where

    @property
    def reach_database(self):
        """The database's name as a container or an embedded server is told it."""
        return self.reach.database if self.reach.kind == "container" else self.reach.server.database

    @property
    def name(self):
        """The database's own name, as the server says it."""
        return self.rows("SELECT pg_catalog.current_database() AS name")[0]["name"]

    def abandon(self):
        """End the command's session without waiting for what it was sent."""
        if self._session is not None:
            self._session.abandon()
            self._session = None

    def rows(self, sql, **params):
        """The rows of a SELECT in the command's session, as dicts with JSON types.

        Arguments: `sql` with :name for each of `params`. Raises SqlFailure, Unreachable, CredentialsRefused.
        """
        return self.ask(sql, **params)()

    def ask(self, sql, **params):
        """Send a SELECT now, and return the function that waits for its rows and returns them; see `rows`."""
        session = self.session()
        ahead, self._ahead = self._ahead, None
        answer = ahead[2] if ahead and ahead[:2] == (session, sql) else session.ask(sql, **params)
        return lambda: self._heard(answer)

    def _heard(self, answer):
        try:
            return answer()
        except StatementFailed as failed:
            raise failure_of(failed.error, self.where) from None
        except ConnectionLost as lost:
            raise connection_failure(lost.text, self.where) from None

    def execute(self, *texts):
        """Run SQL texts of ours in the command's session as one query."""
        if self.shows_own:
            self.show(*texts)
        try:
            self.session().execute(*texts)
        except StatementFailed as failed:
            raise failure_of(failed.error, self.where) from None
        except ConnectionLost as lost:
            raise connection_failure(lost.text, self.where) from None

    def show(self, *texts):
        """Show SQL texts of ours as they are about to run, under --verbose."""
        for text in texts if self.on_statement else ():
            self.on_statement(shown_text(text))

    def session(self):
        """The command's session; a new one when the last has ended."""
        if self._session is None or not self._session.alive:
            if self._session is not None:
                self._session.close()
            begun, self._begun = self._begun, None
            self._session = self._checked(lambda: begun, OWN_LOGIN, NO_PARAMETERS) if begun else self.connect()
        return self._session

    def begin(self):
        """Start psql for the command's session without waiting: the caller loads code and reads files meanwhile."""
        if self._session is None and self._begun is None and self.reach.driver == "psql":
            self._begun = self._open_asked(OWN_LOGIN, NO_PARAMETERS)

    def ask_first(self, sql):
        """Put `sql` to a session that was begun; its rows are asked for later, by the same text."""
        if self._begun:
            session = self._begun[0]
            self._ahead = (session, sql, session.ask(sql))

    def _open_asked(self, login, parameters):
        """A session that is not checked yet, and what returns the rows of SQL_HELD, which checks it."""
        session = self._open(login, parameters)
        return session, session.ask(SQL_HELD)

    def connect(self, login=OWN_LOGIN, parameters=NO_PARAMETERS):
        """A session of its own, checked to be open.

        Arguments: `login`, another role to log in as; `parameters`, server settings by name for the whole session,
        beside ours. Raises Unreachable or CredentialsRefused.
        """
        return self._checked(lambda: self._open_asked(login, parameters), login, parameters)

    def _checked(self, opened, login, parameters):
        """The session that `opened` gives, once it has answered a first question."""
        session = None
        try:
            session, held = opened()
            answer = held()[0]
            session.deadline = None
            self.keeps_parameters = answer["held"]
            if not answer["held"]:
                self._settle_behind_pooler(session, answer["pid"], login, parameters)
            return session
        except ConnectionLost as lost:
            if session is not None:
                session.abandon()
            return self._connect_otherwise(lost.text, login, parameters)
        except StatementFailed as failed:
            raise failure_of(failed.error, self.where) from None

    def _connect_otherwise(self, text, login, parameters):
        """Another try where the words of the refusal name a way round it."""
        if "unsupported startup parameter" in text and self._startup_options:
            # A pooler that passes no options on (pgbouncer before 1.20): they are set after connecting instead.
            self._startup_options = False
            return self.connect(login, parameters)
        if self.reach.kind == "container":
            return self._connect_by_labels(text, login, parameters)
        place = self.reach.place if self.reach.kind == "url" else None
        raise (docker_failure(text, place) if place else None) or connection_failure(text, self.where)

    def _settle_behind_pooler(self, session, pid, login, parameters):
        """Set what a pooler has dropped; raise Refused where the session is not ours alone.

        A pooler in transaction mode would give the settings, and the lock, to other clients.
        """
        if login.user not in self._own_sessions and self._is_shared(session, pid, login):
            session.abandon()
            raise Refused(
                "this connection goes through a pooler in transaction mode, which keeps neither a session's lock nor "
                "its settings",
                "give a direct connection to Postgres by --url or NSELF_DB_URL (not pgBouncer's port)",
            )
        self._own_sessions.add(login.user)
        session.execute(*(f"SET {name} = '{value}'" for name, value in self._own(parameters).items()))

    def _is_shared(self, session, pid, login):
        """Whether a second connection is given our server process, or we another from one question to the next."""
        ask = "SELECT pg_catalog.pg_backend_pid() AS pid"
        with self._open(login, NO_PARAMETERS) as other:
            others = other.rows(ask)[0]["pid"]
            seen = [(session.rows(ask)[0]["pid"], other.rows(ask)[0]["pid"]) for _ in range(POOLER_ROUNDS)]
        return pid == others or {*seen} != {(pid, others)}

    def _connect_by_labels(self, text, login, parameters):
        problem = docker_failure(text, self.reach)
        if problem is None:
            raise connection_failure(text, self.where)
        if "No such container" in text and not self.settings.get("NSELF_DB_CONTAINER"):
            found = self.reach.find_by_labels()
            if found and found != self.reach.container:
                self.reach.container = found
                return self.connect(login, parameters)
        raise problem

    def _open(self, login, parameters):
        from nself_core.postgres.psql import ENVIRONMENT, PsqlSession

        variables = self.variables(parameters)
        if self.reach.driver == "psycopg":
            return self._open_libpq(login, variables)
        argv, env, shares_files = self._psql({**variables, **ENVIRONMENT}, login)
        session = PsqlSession([*argv, "-X", "-q", "-w"], env, self.where, self.on_statement, shares_files)
        session.deadline = self.patience and time.monotonic() + self.patience
        return session

    def _psql(self, variables, login):
        """Arguments and environment for psql, and whether it sees this host's files."""
        try:
            argv, env = self.reach.command("psql", variables, login)
        except Unreachable as failure:
            from nself_core.postgres import container_clients

            return (*container_clients.session_psql(self.reach, variables, login, failure), False)
        return argv, env, self.reach.kind != "container"

    def _open_libpq(self, login, variables):
        from nself_core.postgres.libpq import LibpqSession

        conninfo, parameters = self.reach.connection(variables, login)
        self.reach.forget_other_places(os.environ)
        parameters["connect_timeout"] = self.patience or CONNECT_SECONDS
        try:
            return LibpqSession(conninfo, parameters, self.where, self.on_statement)
        except ImportError as error:
            hint = "install psycopg[binary], or use --driver psql"
            raise Unreachable(f"psycopg cannot be used: {error}", hint) from None

    def variables(self, parameters=NO_PARAMETERS):
        """libpq's environment variables for a client program, with server settings `parameters` beside ours.

        They are given at connection so that a file's RESET ALL returns to them.
        """
        options = [self._own_options()] if self.reach.kind == "url" else []
        if self._startup_options:
            options += [f"-c {name}={value}" for name, value in self._own(parameters).items()]
        return {
            "PGAPPNAME": self.application,
            "PGCLIENTENCODING": "UTF8",
            "PGCONNECT_TIMEOUT": str(self.patience or CONNECT_SECONDS),
            "PGOPTIONS": " ".join(option for option in options if option) or None,
            "PG_COLOR": "never",
            "LC_ALL": "C",
        }

    def _own(self, parameters):
        """The server settings of a session by name: `parameters` count the most."""
        return {**PARAMETERS, **self._parameters, **parameters}

    def _own_options(self):
        """The user's own options: the URL's count more than the environment's, as libpq has it."""
        own = self.reach.options
        return os.environ.get("PGOPTIONS", "") if own is None else own

    def terminate(self, process):
        """End the server's side of an own session that was left behind, from another session.

        Arguments: `process`, its row of SQL_PROCESS: the time tells it from a later process with the same number.
        """
        with self.connect() as session:
            session.rows(
                "SELECT pg_catalog.pg_terminate_backend(pid) AS ended FROM pg_catalog.pg_stat_activity "
                "WHERE pid = :pid AND backend_start::pg_catalog.text = :started",
                **process,
            )

    def finish(self):
        """Tell the command's session that no question follows, and do not wait for its end."""
        for session in self._sessions():
            session.finish()

    def _sessions(self):
        return [session for session in (self._session, self._begun and self._begun[0]) if session]

    def close(self):
        """End the command's session."""
        for session in self._sessions():
            session.close()
        self._session = self._begun = None


# What docker's command says when no engine answers, before and since its version 28.
NO_DOCKER = (
    "cannot connect to the docker daemon",
    "failed to connect to the docker api",
    "permission denied while trying to connect",
)


def docker_failure(text, reach):
    """The failure that docker's own words mean; None when they are not docker's."""
    low = text.lower()
    name = reach.container
    if "no such container" in low:
        hint = "start the stack, or set PROJECT_NAME or NSELF_DB_CONTAINER"
        return Unreachable(f"there is no container {name}", hint)
    if "is not running" in low:
        return Unreachable(f"the container {name} is not running", f"start the stack, or: docker start {name}")
    if any(words in low for words in NO_DOCKER):
        return Unreachable("Docker cannot be reached", "start Docker, or give a connection by --url or NSELF_DB_URL")
    if "executable file not found" in low:
        return Unreachable(f"the container {name} has no psql", "NSELF_DB_CONTAINER must name the Postgres container")
    if low.startswith("error response from daemon") or "error during connect" in low:
        return Unreachable(f"Docker refused: {text.strip().splitlines()[0]}")
    return None
