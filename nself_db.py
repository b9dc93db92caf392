#!/usr/bin/env python3
"""nself-db: everything an nSelf stack needs of its database, in one command.

This module is the face: the table of commands, their options, and one handler a command. A handler gathers facts,
lets a room below decide, and returns a Report; it never prints and never knows --json. What is imported here at
the top is all that `--version` and a group's help may cost (DESIGN.md, "Start-up is part of the shape").
"""

from __future__ import annotations

import gc
import os
import sys
from collections import namedtuple

from nself_core import __version__
from nself_core.failures import Failure, Interrupted, Unreachable, UsageFailure

# ---------------------------------------------------------------------------------------------------------------
# Options: each is named once and used by its name in the table.
# ---------------------------------------------------------------------------------------------------------------

Option = namedtuple("Option", "names keywords")
Row = namedtuple("Row", "path help options effect example")

READS, WRITES, DESTROYS = "reads", "writes", "destroys"


def option(*names, **keywords):
    """An option or argument of a command, as argparse's add_argument takes it."""
    return Option(names, keywords)


def row(path, help, *options, effect, example):
    """A command: its words, its help sentence, its options, what it does to the database, and an example."""
    return Row(path, help, options, effect, example)


def whole_number(text):
    """A count from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise UsageFailure(f"{text!r} is not a whole number from 1")
    return int(text)


def seconds(text):
    """A number of seconds from 0."""
    if not text.replace(".", "", 1).isdecimal() or float(text) >= 10**6:
        raise UsageFailure(f"{text!r} is not a number of seconds from 0")
    return float(text)


def port(text):
    """A port's number; 0 for any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise UsageFailure(f"{text!r} is not a port")
    return int(text)


def version(text):
    """A migration's version in any spelling: 7, 00013, 20240501120000."""
    from nself_core.migrations.files import parse_version

    return parse_version(text)


ENV = option("--env", metavar="NAME", help="the environment: dev, staging, prod (default: the active one)")
DRY_RUN = option("--dry-run", action="store_true", help="print what would run, then exit without running it")
JSON = option("--json", action="store_true", help="print one JSON document")
VERBOSE = option("--verbose", "-v", action="store_true", help="print each SQL statement as it runs")
QUIET = option("--quiet", "-q", action="store_true", help="print errors and the final status only")
PROJECT = option("--project", metavar="DIR", help="the project's root (default: found upward from here)")
URL = option("--url", metavar="URL", help="connect by this URL instead of through the stack's container")
DRIVER = option("--driver", choices=("psql", "psycopg"), help="what talks to Postgres where a URL is given")
GLOBAL = (ENV, DRY_RUN, JSON, VERBOSE, QUIET, PROJECT, URL, DRIVER)

FORCE = option("--force", action="store_true", help="do not ask before destroying")
FORCE_BASELINE = option("--force", action="store_true", help="do not look whether the tables are there")
CONFIRM = option("--confirm", metavar="PROJECT", help="with --force in prod: the project's name")
COUNT = option("--count", type=whole_number, metavar="N", help="at most N migrations (up: all, down: 1)")
TO = option("--to", type=version, metavar="VERSION", help="the last version that is applied afterwards")
SKIP_METADATA = option("--skip-metadata", action="store_true", help="do not reload Hasura's metadata afterwards")
OUT_OF_ORDER = option(
    "--allow-out-of-order", action="store_true", help="also apply versions older than the newest applied"
)
INCONSISTENT = option(
    "--allow-inconsistent", action="store_true", help="commit even what breaks tables that Hasura tracks"
)
STRICT = option("--strict", action="store_true", help="fail before running when an applied file has changed")
LOCK_WAIT = option("--lock-wait", type=seconds, default=60.0, metavar="S", help="seconds to wait for another run (60)")
EXIT_CODE = option("--exit-code", action="store_true", help="exit with 1 when anything is not applied")
NAME = option("name", metavar="NAME", help="lower-case letters, digits, _ and -")
SQL = option(
    "--sql", metavar="SQL", help="the statements to put into the file; the down file is derived where it is clear"
)
MIGRATION = option("--migration", type=version, required=True, metavar="VERSION", help="the migration's version")
VERSION = option("version", nargs="?", type=version, metavar="VERSION", help="the last version to record")
FROM_HASURA = option("--from-hasura", action="store_true", help="take over the versions that Hasura's CLI has recorded")
APPLIED = option("--applied", action="store_true", help="record it as applied, running nothing")
PENDING = option("--pending", action="store_true", help="forget it, running nothing")
STATEMENT_DONE = option(
    "--statement-done", type=whole_number, metavar="K", help="statement K, which was begun, took effect"
)
STATEMENT_UNDONE = option("--statement-undone", type=whole_number, metavar="K", help="statement K did not take effect")
COUNTS = option("--counts", action="store_true", help="count the rows of each table")
FILTER = option("--filter", metavar="PREFIX", help="only names that begin with PREFIX")
ALL = option("--all", action="store_true", help="every schema of the database, not only managed prefixes")
CASCADE = option("--cascade", action="store_true", help="drop what hangs on them too")
INCLUDE_AUDIT = option("--include-audit", action="store_true", help="drop np_audit_log too")
BACKUP_FIRST = option("--backup", action="store_true", help="take a backup first")
NO_SEED = option("--no-seed", action="store_true", help="run no seeds afterwards")
ALL_MADE = option("--all", action="store_true", help="also empty the schemas that applied migrations filled")
OFF = option("--off", action="store_true", help="take the protection away")
COMMAND = option("--command", metavar="SQL", help="run one SQL statement and exit")
RW = option("--rw", action="store_true", help="read-write (default: read-only)")
INSTALL_READER = option("--install-reader", action="store_true", help="make the login role that read-only shells use")
FIXTURE = option("--fixture", action="append", required=True, metavar="NAME", help="a fixture set; may be repeated")
FIXTURES = option("--fixture", action="append", metavar="NAME", help="only this fixture set; may be repeated (all)")
COMMIT = option("--commit", action="store_true", help="keep the rows (default: roll them back)")
CMD = option("cmd", nargs="*", metavar="-- CMD", help="run CMD against a clone of the database that holds the fixtures")

SEED_FILE = option("--file", metavar="FILE", help="only this seed")
TAG = option("--tag", metavar="TAG", help="only seeds with this tag: a folder's name, or a word of their own")
CHANGED = option("--changed", action="store_true", help="only seeds that are new or were edited since they ran")
TWICE = option("--twice", action="store_true", help="run each seed twice: the second time must add nothing")
FORMAT = option("--format", choices=("text", "mermaid", "dot"), default="text", help="text (default), mermaid or dot")

LABEL = option("--label", metavar="TEXT", help="a word behind the time in the file's name")
BACKUP_FORMAT = option(
    "--format", choices=("custom", "plain", "directory"), default="custom", help="pg_dump's format (custom)"
)
COMPRESS = option("--compress", metavar="N", help="0 to 9 (6), or zstd[:N], lz4 since Postgres 16; plain: none")
JOBS = option("--jobs", type=whole_number, metavar="N", help="tables dumped at once; with --format directory")
VERIFY = option("--verify", action="store_true", help="read the backup whole when it is written")
REMOTE = option("--remote", action="store_true", help="in the object store (settings STORAGE_*)")
SEND = option("--remote", action="store_true", help="send it to the object store too, while it is taken")
NO_LOCAL = option("--no-local", action="store_true", help="with --remote: keep no file here")
UPLOAD = option("--upload", metavar="FILE", help="take none: send this backup to the object store")
BACKUP = option("backup", nargs="?", metavar="FILE", help="a backup (default: all)")
KEEP_LAST = option("--keep-last", type=whole_number, metavar="N", help="keep the newest N")
KEEP_DAILY = option("--keep-daily", type=whole_number, metavar="N", help="keep one for each of the last N days")
KEEP_WEEKLY = option("--keep-weekly", type=whole_number, metavar="N", help="keep one for each of the last N weeks")
KEEP_MONTHLY = option("--keep-monthly", type=whole_number, metavar="N", help="keep one for each of the last N months")

RESTORE_FILE = option("--file", metavar="FILE", help="this backup (default: the newest of this environment's database)")
RESTORE_JOBS = option("--jobs", type=whole_number, metavar="N", help="tables loaded at once; not for plain dumps")
NO_SAFETY = option("--no-safety-backup", action="store_true", help="take no backup of the present state first")
IN_PLACE = option("--in-place", action="store_true", help="inside the database, in one transaction; none is created")
UNDO = option("--undo", action="store_true", help="put the database back that the last restore set aside")
CLEAN = option("--clean", action="store_true", help="drop the databases that restores have set aside")

ALLOW_INCONSISTENT = option(
    "--allow-inconsistent", action="store_true", help="apply it also where the engine cannot use all of it"
)
DIFFERS = option("--exit-code", action="store_true", help="exit with 1 when anything differs")
FROM_DATABASE = option("--from-database", action="store_true", help="read what Hasura has stored, without its engine")
OFFLINE = option("--offline", action="store_true", help="check the structure only, and ask no server")
RULE = option("--rule", action="append", metavar="ID", help="look for this rule only; may be repeated")
IGNORE = option("--ignore", action="append", metavar="ID", help="do not look for this rule; may be repeated")
FIX = option("--fix", action="store_true", help="set right what can be set right without a question")
FORCE_EXPORT = option("--force", action="store_true", help="overwrite files with uncommitted edits; copies are kept")
FORCE_PULL = option("--force", action="store_true", help="take the engine's where both sides changed the same thing")
FORCE_PUSH = option("--force", action="store_true", help="undo what changed in the engine; in prod, do not ask")
CONSOLE_PORT = option("--port", type=port, metavar="PORT", help="the console's port on this computer (9695)")
NO_BROWSER = option("--no-browser", action="store_true", help="print the link and open no browser")
READ_ONLY = option("--read-only", action="store_true", help="let nothing through that changes anything (in prod)")
CONSOLE_RW = option("--rw", action="store_true", help="let changes through, in prod too")
IDLE = option("--idle", type=seconds, metavar="S", help="end after S seconds without a request (default: never)")

# ---------------------------------------------------------------------------------------------------------------
# The commands.
# ---------------------------------------------------------------------------------------------------------------

GROUPS = {
    "migrate": "Apply, roll back, inspect and create schema migrations.",
    "seed": "Fill the database with reference and test data, in the order its tables need.",
    "fixtures": "Sets of rows for tests, loaded in a transaction that is rolled back.",
    "hasura": "Hasura's console, and its metadata in files, in the engine and in git.",
    "hasura metadata": "Compare, apply, export and check Hasura's metadata.",
    "hasura git": "Hasura's metadata between git and the engine.",
    "server": "The embedded server of a project that has no stack (NSELF_DB_ENGINE=embedded).",
}

# fmt: off
COMMANDS = (
    row("migrate up", "Apply all pending migrations.",
        COUNT, TO, SKIP_METADATA, OUT_OF_ORDER, INCONSISTENT, STRICT, LOCK_WAIT,
        effect=WRITES, example="nself-db migrate up --count 3"),
    row("migrate down", "Roll back the last applied migrations.",
        COUNT, TO, SKIP_METADATA, INCONSISTENT, LOCK_WAIT, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db migrate down --count 2"),
    row("migrate status", "Show which migrations are applied, pending, changed or missing.", EXIT_CODE,
        effect=READS, example="nself-db migrate status --json"),
    row("migrate create", "Create a migration and its down file.", NAME, SQL,
        effect=WRITES, example='nself-db migrate create add_age --sql "ALTER TABLE users ADD COLUMN age int"'),
    row("migrate verify-checksums", "Find applied migration files that have changed or vanished.",
        effect=READS, example="nself-db migrate verify-checksums"),
    row("migrate reset-checksum", "Accept the present text of an applied migration file.", MIGRATION, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db migrate reset-checksum --migration 20240501120000"),
    row("migrate baseline", "Record migrations as applied without running them.", VERSION, FROM_HASURA, FORCE_BASELINE,
        effect=WRITES, example="nself-db migrate baseline 20240501120000"),
    row("migrate repair", "Settle a migration that was left half done.",
        MIGRATION, APPLIED, PENDING, STATEMENT_DONE, STATEMENT_UNDONE, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db migrate repair --migration 20240501120000 --statement-done 2"),
    row("seed run", "Run the seeds of this environment, in the order their tables need.",
        SEED_FILE, TAG, CHANGED, LOCK_WAIT,
        effect=WRITES, example="nself-db seed run --changed"),
    row("seed list", "Show every seed with its tags and whether it ran.",
        effect=READS, example="nself-db seed list --json"),
    row("seed verify", "Find rows that the seeds would still add, and seeds that cannot run twice.", SEED_FILE, TWICE,
        effect=READS, example="nself-db seed verify --twice"),
    row("seed graph", "Show which seed runs before which, and why.", FORMAT,
        effect=READS, example="nself-db seed graph --format mermaid"),
    row("backup", "Back the database up with pg_dump.", LABEL, BACKUP_FORMAT, COMPRESS, JOBS, VERIFY,
        SEND, NO_LOCAL, UPLOAD,
        effect=WRITES, example="nself-db backup --label pre-migration-v2"),
    row("backup list", "List backups, and databases that restores have set aside, with age and size.", REMOTE,
        effect=READS, example="nself-db backup list"),
    row("backup verify", "Read backups whole and compare their hashes.", BACKUP, REMOTE,
        effect=READS, example="nself-db backup verify"),
    row("backup prune", "Remove old backups, but never the newest good one.",
        KEEP_LAST, KEEP_DAILY, KEEP_WEEKLY, KEEP_MONTHLY, REMOTE, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db backup prune --keep-last 7 --keep-monthly 12"),
    row("restore", "Put a backup in place of the present database, which steps aside.",
        RESTORE_FILE, REMOTE, RESTORE_JOBS, IN_PLACE, NO_SAFETY, UNDO, CLEAN, SKIP_METADATA, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db restore --file .nself-backups/2024-05-01T12:00:00_pre-migration-v2.dump"),
    row("list", "List tables, views and sequences with a managed prefix.", COUNTS, FILTER, ALL,
        effect=READS, example="nself-db list --counts"),
    row("shell", "Open psql, read-only by default, or run one statement.", COMMAND, RW, INSTALL_READER, FORCE, CONFIRM,
        effect=WRITES, example='nself-db shell --command "SELECT count(*) FROM users"'),
    row("drop", "Drop everything with a managed prefix, and forget which migrations were applied.",
        CASCADE, INCLUDE_AUDIT, BACKUP_FIRST, LOCK_WAIT, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db drop --dry-run"),
    row("reset", "Drop everything with a managed prefix, then apply all migrations anew; never in prod.",
        NO_SEED, ALL_MADE, SKIP_METADATA, INCONSISTENT, LOCK_WAIT, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db reset --no-seed"),
    row("protect", "Forbid drop, reset and restore on this database, until --off.", OFF, LOCK_WAIT, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db protect --env prod"),
    row("fixtures list", "List the fixture sets with the tables they fill and need.",
        effect=READS, example="nself-db fixtures list --json"),
    row("fixtures run", "Load fixture sets and roll them back, or run a command with them.", FIXTURE, COMMIT, CMD,
        effect=WRITES, example="nself-db fixtures run --fixture basic-users -- pytest -q"),
    row("fixtures verify", "Check that fixture sets can be loaded.", FIXTURES,
        effect=WRITES, example="nself-db fixtures verify --fixture basic-users"),
    row("hasura metadata apply", "Make the engine's metadata what the files say.",
        ALLOW_INCONSISTENT, FORCE, CONFIRM,
        effect=DESTROYS, example="nself-db hasura metadata apply --dry-run"),
    row("hasura metadata export", "Make the files say what the engine has.", FROM_DATABASE, FORCE_EXPORT,
        effect=WRITES, example="nself-db hasura metadata export"),
    row("hasura metadata reload", "Have the engine read its metadata and the database anew.",
        effect=WRITES, example="nself-db hasura metadata reload"),
    row("hasura metadata diff", "Show what applying the files would change in the engine.", DIFFERS,
        effect=READS, example="nself-db hasura metadata diff --exit-code"),
    row("hasura metadata validate", "Check the files against Hasura's schema, the database and the engine.", OFFLINE,
        effect=READS, example="nself-db hasura metadata validate"),
    row("hasura metadata lint", "Find what is allowed in metadata and seldom meant.", RULE, IGNORE, FIX,
        effect=READS, example="nself-db hasura metadata lint --ignore missing-limit"),
    row("hasura git status", "Show metadata files that are not committed, and whether the engine has what they say.",
        effect=READS, example="nself-db hasura git status"),
    row("hasura git pull", "Join what changed in the engine into the files.", FORCE_PULL,
        effect=WRITES, example="nself-db hasura git pull"),
    row("hasura git push", "Apply the files, unless the engine has changed since the last sync.",
        ALLOW_INCONSISTENT, FORCE_PUSH, CONFIRM,
        effect=DESTROYS, example="nself-db hasura git push --dry-run"),
    row("hasura console", "Open Hasura's console in the browser, through a proxy that keeps the admin secret.",
        CONSOLE_PORT, NO_BROWSER, READ_ONLY, CONSOLE_RW, IDLE,
        effect=WRITES, example="nself-db hasura console --port 9695"),
    row("server status", "Show whether the embedded server runs.",
        effect=READS, example="nself-db server status"),
    row("server stop", "Stop the embedded server.",
        effect=WRITES, example="nself-db server stop"),
)
# fmt: on

# ---------------------------------------------------------------------------------------------------------------
# Handlers: a handler's name is its path.
# ---------------------------------------------------------------------------------------------------------------


def migrate_up(ctx, args):
    ctx.database.begin()
    from nself_core.migrations import planning, survey

    def choose(entries):
        return planning.choose_up(entries, args.count, args.to, args.allow_out_of_order, args.strict)

    found = survey.survey_for_run(ctx.settings, ctx.database)
    chosen, warnings = choose(found.entries)
    plan = planning.plan_run(survey.read_ups(chosen), [*found.listing.warnings, *warnings], "apply")
    again = survey.choose_again(found, lambda entries: choose(entries)[0])
    return ctx.execute(ctx.with_reload(plan, found.ledger.facts, args), ctx.migration_performers("up", args, again))


def migrate_down(ctx, args):
    from nself_core.migrations import planning, survey

    def choose(entries):
        return planning.choose_down(entries, args.count, args.to)

    found = survey.survey_for_run(ctx.settings, ctx.database)
    plan = planning.plan_run(survey.read_downs(choose(found.entries)), found.listing.warnings, "roll back")
    again = survey.choose_again(found, choose)
    return ctx.execute(ctx.with_reload(plan, found.ledger.facts, args), ctx.migration_performers("down", args, again))


def migrate_status(ctx, args):
    ctx.database.begin()
    from nself_core.migrations import status

    if ctx.settings.env == ctx.settings.active_env:
        found, warnings = status.read_state(ctx.settings, ctx.database)
        return status.report(found, warnings, args.exit_code)
    return status.compare(ctx.settings, ctx.database, ctx.other_database(ctx.settings.active_env), args.exit_code)


def migrate_create(ctx, args):
    from nself_core.migrations import create, files

    def plan():
        return create.plan_command(args.name, args.sql, files.find_migrations(ctx.settings))

    return ctx.execute(plan(), {"file": lambda steps: create.apply_steps(steps, lambda: plan().steps)})


def migrate_verify_checksums(ctx, args):
    from nself_core.migrations import status

    return status.checksum_report(*status.read_state(ctx.settings, ctx.database))


def migrate_reset_checksum(ctx, args):
    from nself_core.migrations import repair, survey

    found = survey.survey(ctx.settings, ctx.database)
    return ctx.execute(repair.plan_reset_checksum(found, args.migration), ctx.sql_performers())


def migrate_baseline(ctx, args):
    from nself_core.migrations import baseline, survey

    found = survey.survey(ctx.settings, ctx.database)
    plan = baseline.plan_baseline(ctx.database, found, args.version, args.from_hasura, args.force)
    return ctx.execute(plan, ctx.sql_performers())


def migrate_repair(ctx, args):
    from nself_core.migrations import repair, survey

    found = survey.survey(ctx.settings, ctx.database)
    choice = repair.choose(args.applied, args.pending, args.statement_done, args.statement_undone)
    return ctx.execute(repair.plan_repair(found, args.migration, choice), ctx.sql_performers())


def seed_run(ctx, args):
    from nself_core.seeds import survey

    found = survey.survey(ctx.settings, ctx.database, ctx.seed_programs(), args.file, args.tag)
    return ctx.execute(survey.plan_run(found, ctx.database, args.changed, ctx.settings.env), ctx.seed_performers(args))


def seed_list(ctx, args):
    from nself_core.seeds import files, ledger, status

    ctx.database.begin()
    listing = files.find_seeds(ctx.settings)
    return status.report(listing, ledger.read_records(ctx.database), ctx.settings.env)


def seed_verify(ctx, args):
    from nself_core.seeds import survey, verify

    found = survey.survey(ctx.settings, ctx.database, ctx.seed_programs(), args.file)
    return verify.check(ctx.database, found, args.twice)


def seed_graph(ctx, args):
    from nself_core.seeds import graph, survey

    programs = ctx.seed_programs()
    found = survey.survey(ctx.settings, ctx.database, programs.if_possible)
    return graph.report(found.order, [*found.listing.warnings, *programs.warnings], args.format)


def backup(ctx, args):
    if args.upload:
        from nself_core.backups import send

        return ctx.execute(send.plan_upload(ctx.settings, args), ctx.backup_performers())
    from nself_core.backups import manifest, names, take

    names.check_own_label(args.label)
    facts = manifest.read_facts(ctx.database)
    plan = take.plan_backup(ctx.settings, facts, args)
    return ctx.execute(plan, ctx.backup_performers())


def backup_list(ctx, args):
    import time

    from nself_core.backups import aside, folder, status

    if args.remote:
        from nself_core.backups import remote

        store = remote.open_remote(ctx.settings)
        return status.report_remote(store, remote.list_backups(store), time.time())
    place = folder.backup_folder(ctx.settings)
    asides, warnings = aside.look(ctx.settings, ctx.database)
    return status.report(place, folder.list_backups(place), time.time(), asides, warnings)


def backup_verify(ctx, args):
    from nself_core.backups import folder, verify

    place = folder.backup_folder(ctx.settings)
    if args.remote:
        from nself_core.backups import remote, verify_remote

        store = remote.open_remote(ctx.settings)
        chosen = verify_remote.choose(store, args.backup, place.identity)
        return verify.check(
            lambda one: verify_remote.examine(ctx.database, store, one, place), chosen, ctx.console.progress
        )
    chosen = verify.choose(place, args.backup)
    return verify.check(lambda one: verify.examine(ctx.database, one), chosen, ctx.console.progress)


def backup_prune(ctx, args):
    from nself_core.backups import folder, prune

    keep = prune.read_keep(ctx.settings, args.keep_last, args.keep_daily, args.keep_weekly, args.keep_monthly)
    if args.remote:
        from nself_core.backups import prune_remote, remote

        store = remote.open_remote(ctx.settings)
        plan = prune_remote.plan_prune(store, ctx.database.name, keep)
        return ctx.execute(plan, {"prune": lambda steps: prune_remote.perform(store, steps)})
    plan = prune.plan_prune(folder.backup_folder(ctx.settings), ctx.settings, ctx.database.name, keep)
    return ctx.execute(plan, {"prune": prune.perform})


def restore(ctx, args):
    from nself_core.backups import exchange, folder, manifest, options
    from nself_core.backups import restore as room

    options.check_options(args)
    closed = exchange.plan_reopen(ctx.database)
    if closed:
        return ctx.execute(closed, {**ctx.restore_performers(None), "again": lambda _: restore(ctx, args)})
    facts = manifest.read_facts(ctx.database)
    if args.undo or args.clean:
        plan = (room.plan_undo if args.undo else room.plan_clean)(ctx.database, facts["database"])
        if args.undo:
            plan = ctx.with_reload(plan, facts, args, room.may_return_metadata(ctx.database, plan))
        return ctx.execute(plan, ctx.restore_performers(facts["database"]))
    place, fetching, passed = folder.backup_folder(ctx.settings), (), ()
    if args.remote:
        from nself_core.backups import fetch, remote

        store = remote.open_remote(ctx.settings)
        source = remote.choose(store, facts["database"], args.file, place.identity, room.SAFETY_LABEL)
        chosen, fetching = fetch.plan_fetch(store, source, place)
    else:
        chosen = room.choose(place, ctx.settings, facts["database"], args.file)
        passed = () if args.file else room.passed_over(place, chosen)
    safety = None if args.no_safety_backup else ctx.safety_plan(facts, room.SAFETY_LABEL)
    plan = room.plan_restore(ctx.database, chosen, facts, args.jobs, safety, args.in_place, is_here=not args.remote)
    plan = plan._replace(steps=[*fetching, *plan.steps], warnings=[*passed, *plan.warnings])
    plan = ctx.with_reload(plan, facts, args, manifest.may_hold_metadata(chosen.manifest))
    return ctx.execute(plan, ctx.restore_performers(facts["database"]))


def list(ctx, args):  # noqa: A001 - a handler's name is its path
    from nself_core import inventory

    prefixes = None if args.all else ctx.settings.prefixes
    return inventory.report(ctx.database, prefixes, args.filter, args.counts, ctx.console.progress)


def shell(ctx, args):
    from nself_core import shell as room

    if args.install_reader:
        plan = room.plan_reader(ctx.database, args.command, args.rw)
    elif args.command is not None:
        plan = room.plan_command(args.command, args.rw)
    else:
        plan = room.plan_terminal(args.rw, args.json)
    return ctx.execute(plan, ctx.shell_performers())


def drop(ctx, args):
    from nself_core.teardown import closure, perform
    from nself_core.teardown.drop import plan_drop

    scope = closure.Scope(ctx.settings.prefixes, args.include_audit)
    facts = perform.read_facts(ctx.database, scope, ctx.console.progress)
    plan = plan_drop(scope, facts, args.cascade)
    return ctx.execute(ctx.with_backup(plan, "before-drop") if args.backup else plan, ctx.drop_performers(args))


def reset(ctx, args):
    from nself_core import reset as room

    room.refuse_prod(ctx.settings)
    seeds = room.NO_SEEDS if args.no_seed else ctx.seeds_of_reset()
    plan, facts = room.plan_reset(ctx.settings, ctx.database, args.all, ctx.console.progress)
    return ctx.execute(ctx.with_reload(room.join(plan, seeds), facts, args), ctx.reset_performers(args))


def protect(ctx, args):
    from nself_core.bookkeeping.protection import read_marker
    from nself_core.teardown import protect as room

    return ctx.execute(room.plan_protect(read_marker(ctx.database), args.off), ctx.protect_performers(args))


def fixtures_list(ctx, args):
    from nself_core.fixtures import planning

    return planning.report_list(ctx.settings, ctx.database)


def fixtures_run(ctx, args):
    from nself_core.fixtures import planning

    works = planning.read_works(ctx.settings, ctx.database, args.fixture)
    if args.cmd:
        plan = planning.plan_clone(works, ctx.settings, args.cmd, args.commit)
    else:
        plan = planning.plan_run(works, ctx.settings, args.commit)
    return ctx.execute(plan, ctx.fixture_performers())


def fixtures_verify(ctx, args):
    from nself_core.fixtures import planning

    plan = planning.plan_verify(ctx.settings, ctx.database, args.fixture)
    return ctx.execute(plan, ctx.fixture_performers())


def hasura_metadata_apply(ctx, args):
    from nself_core.hasura import apply, comparison

    local = comparison.read_local(ctx.settings)
    compared = comparison.compare(local, comparison.read_live(ctx.hasura))
    return ctx.execute(apply.plan_apply(compared, args.allow_inconsistent), ctx.hasura_performers())


def hasura_metadata_export(ctx, args):
    from nself_core.hasura import comparison, sync

    if args.from_database:
        live, record = comparison.read_stored(ctx.database), None
    else:
        live = comparison.read_live(ctx.hasura)
        record = sync.recorded(ctx.settings.env, ctx.hasura, live)
    plan = sync.plan_export(sync.read_files(ctx.settings, args.force), live, record, args.force)
    return ctx.execute(plan, ctx.hasura_performers())


def hasura_metadata_reload(ctx, args):
    from nself_core.hasura import verdict

    return ctx.execute(verdict.plan_reload(ctx.hasura), ctx.hasura_performers())


def hasura_metadata_diff(ctx, args):
    from nself_core.hasura import comparison

    local = comparison.read_local(ctx.settings)
    return comparison.report(comparison.compare(local, comparison.read_live(ctx.hasura)), args.exit_code)


def hasura_metadata_validate(ctx, args):
    from nself_core.hasura import checking, comparison, validate_catalogue

    local = comparison.read_local(ctx.settings)
    if args.offline:
        return checking.validate_offline(local)
    return checking.validate(
        local,
        lambda document: validate_catalogue.find_broken(ctx.database, document),
        lambda: ctx.hasura.get_inconsistent_metadata()["inconsistent_objects"],
    )


def hasura_metadata_lint(ctx, args):
    from nself_core.hasura import checking, comparison, sync

    rules = checking.choose_rules(args.rule, args.ignore)
    local = comparison.read_local(ctx.settings)
    if not args.fix:
        return checking.report_lint(local, rules)
    files = sync.read_files(ctx.settings, False)
    return ctx.execute(checking.plan_fix(files, rules), ctx.hasura_performers())


def hasura_git_status(ctx, args):
    from nself_core.hasura import git_status

    return git_status.status(ctx.settings, ctx.hasura)


def hasura_git_pull(ctx, args):
    from nself_core.hasura import comparison, sync

    files = sync.read_files(ctx.settings, False)
    live = comparison.read_live(ctx.hasura)
    record = sync.recorded(ctx.settings.env, ctx.hasura, live)
    return ctx.execute(sync.plan_pull(files, live, record, args.force), ctx.hasura_performers())


def hasura_git_push(ctx, args):
    from nself_core.hasura import apply, comparison, sync

    local = comparison.read_local(ctx.settings)
    compared = comparison.compare(local, comparison.read_live(ctx.hasura))
    if not args.force:
        sync.check_push(compared, sync.read_past(ctx.settings, ctx.hasura))
    return ctx.execute(apply.plan_apply(compared, args.allow_inconsistent), ctx.hasura_performers())


def hasura_console(ctx, args):
    from nself_core.hasura import console

    plan = console.plan_console(ctx.settings, args)
    return ctx.execute(plan, {"console": lambda steps: console.serve(steps[0].work, ctx.console)})


def server_status(ctx, args):
    from nself_core import server

    return server.status(ctx.settings)


def server_stop(ctx, args):
    from nself_core import server

    return ctx.execute(server.plan_stop(ctx.settings), {"server": server.stopper(ctx.settings)})


# ---------------------------------------------------------------------------------------------------------------
# From the words of the command line to a handler.
# ---------------------------------------------------------------------------------------------------------------


def find_command(argv):
    """Split the command line into the command's words and everything else.

    Returns (path, rest): `path` may be a group's or incomplete, `rest` keeps options in their order. Options that every
    command has may stand before its words.
    """
    takes_value = {name for item in GLOBAL if "action" not in item.keywords for name in item.names}
    words, rest, position = [], [], 0
    while position < len(argv):
        token = argv[position]
        position += 1
        if token == "--" or (find_row(" ".join(words)) and not goes_on(words, token)):
            return " ".join(words), [*rest, token, *argv[position:]]
        if not token.startswith("-"):
            words.append(token)
            if words == ["db"]:
                words = []
            continue
        rest.append(token)
        if token in takes_value and position < len(argv):
            rest.append(argv[position])
            position += 1
    return " ".join(words), rest


def goes_on(words, token):
    """Whether the command that `words` are is also the beginning of one that goes on with `token`."""
    return any(item.path.split()[: len(words) + 1] == [*words, token] for item in COMMANDS)


def find_row(path):
    """The row of the table with this path, or None."""
    return next((item for item in COMMANDS if item.path == path), None)


def below(path):
    """The rows of a group; of the empty path, all."""
    return [item for item in COMMANDS if not path or item.path.startswith(path + " ")]


def handler_of(path):
    """The handler function of a command."""
    return globals()[path.replace(" ", "_").replace("-", "_")]


def build_parser(item):
    """The argparse parser of one command."""
    import argparse

    # argparse looks each of its words up in a catalogue of translations, for which it reads the locale: 2 ms.
    vars(argparse)["_"] = str
    width = help_width()

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise UsageFailure(message, f"see: nself-db {item.path} --help")

        def print_help(self, file=None):
            sys.exit(_write_out(self.format_help()))

    parser = Parser(
        prog=f"nself-db {item.path}",
        description=item.help,
        epilog=f"Example:\n  {item.example}" + more_commands(item.path),
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=width),
    )
    for chosen in item.options:
        parser.add_argument(*chosen.names, **chosen.keywords)
    common = parser.add_argument_group("for every command")
    for chosen in GLOBAL:
        common.add_argument(*chosen.names, **chosen.keywords)
    for name, missing in (("force", False), ("confirm", None)):
        if parser.get_default(name) is None:
            parser.set_defaults(**{name: missing})
    return parser


def more_commands(path):
    """For the help of a command that others go on from: their words and sentences."""
    rows = [item for item in below(path) if item.path != path]
    lines = [f"  {item.path:<{max(len(one.path) for one in rows)}}  {item.help}" for item in rows]
    return "\n\n" + "\n".join(["Commands:", *lines]) if lines else ""


def help_width():
    """Columns for a help text: COLUMNS, the terminal's, or 80, less argparse's own margin of 2.

    argparse asks for it anew with every option, and imports shutil for that, which costs 2 ms.
    """
    told = os.environ.get("COLUMNS", "")
    try:
        columns = int(told) if told.isdecimal() else os.get_terminal_size(1).columns
    except OSError:
        columns = 0
    return (columns or 80) - 2


def group_help(path):
    """The help of the program or of a group: its commands with their sentences."""
    rows = below(path)
    width = max(len(item.path) for item in rows)
    lines = [f"usage: nself-db {path + ' ' if path else ''}COMMAND [OPTIONS]", ""]
    lines += [GROUPS[path] if path else "Everything an nSelf stack needs of its database, in one command.", ""]
    lines += [f"  {item.path:<{width}}  {item.help}" for item in rows]
    lines += ["", "For every command:"]
    names = [
        ", ".join(item.names) + (f" {item.keywords['metavar']}" if "metavar" in item.keywords else "")
        for item in GLOBAL
    ]
    wide = max(map(len, names))
    lines += [f"  {name:<{wide}}  {item.keywords['help']}" for name, item in zip(names, GLOBAL)]
    lines += ["", "More of a command: nself-db COMMAND --help"]
    return "\n".join(lines) + "\n"


def unknown_command(path):
    """The failure for words that are no command."""
    import difflib

    near = difflib.get_close_matches(path, [*(item.path for item in COMMANDS), *GROUPS], 1)
    return UsageFailure(
        f"there is no command {path!r}", f"did you mean: nself-db {near[0]}" if near else "see: nself-db --help"
    )


def version_text(verbose):
    """The program's version; verbose, also what it runs on: Python, psycopg's implementation and its libpq."""
    text = f"nself-db {__version__}\n"
    if not verbose:
        return text
    import platform

    text += f"Python {platform.python_version()} at {sys.executable}\n"
    try:
        import psycopg

        return text + f"psycopg {psycopg.__version__}, {psycopg.pq.__impl__}, libpq {psycopg.pq.version()}\n"
    except ImportError as error:
        return text + f"psycopg: not usable ({error})\n"


def main(argv=None):
    """Run one command line and return its exit code.

    Argument: `argv`, the words after the program's name, by default this process's.
    """
    argv = sys.argv[1:] if argv is None else argv
    gc.set_threshold(50_000)  # thousands of rows live to a command's end: looking at each again and again costs 3 ms
    try:
        return _main([*argv])
    except BrokenPipeError:
        # The reader has gone (`| head`): what is left has nowhere to go, and saying so neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _main(argv):
    path, rest = find_command(argv)
    item = find_row(path)
    if item is None and not path and "--version" in rest:
        return _write_out(version_text({"--verbose", "-v"} & {*rest}))
    if item is None and below(path) and (not rest or {"--help", "-h"} & {*rest}):
        return _write_out(group_help(path))
    return _run(item, path, rest)


def _write_out(text):
    """Write to stdout before there is a Console, and return the exit code."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        raise
    except (AttributeError, OSError, ValueError):  # closed: Python has no stream then; full: the flush fails
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Unreachable.exit_code


def _run(item, path, rest):
    """Parse one command's options, call its handler, and say how it ended."""
    from nself_core.output import Console

    words = rest[: rest.index("--")] if "--" in rest else rest
    console = Console(
        sys.stdout,
        sys.stderr,
        "--json" in words,
        bool({"--quiet", "-q"} & {*words}),
        bool({"--verbose", "-v"} & {*words}),
    )
    context = None
    try:
        if item is None:
            raise unknown_command(path) if path else UsageFailure("a command is missing", "see: nself-db --help")
        args = build_parser(item).parse_args(rest)
        console.quiet, console.verbose, console.json_mode = args.quiet, args.verbose, args.json
        from nself_core.context import Context

        context = Context(path, args, console)
        _end_on_sigterm()
        report = handler_of(path)(context, args)
        _tell_undisturbed()
        context.finish()
        return console.emit(report, path, context.settings.env, args.dry_run)
    except KeyboardInterrupt:
        return _fail(console, context, path, Interrupted("interrupted"))
    except Failure as failure:
        return _fail(console, context, path, failure)
    finally:
        if context:
            context.close()


def _fail(console, context, path, failure):
    _tell_undisturbed()
    loaded = context._settings if context else None
    dry_run = bool(context and context.args.dry_run)
    return console.emit_failure(failure, path, loaded.env if loaded else None, dry_run, failure.warnings)


def _tell_undisturbed():
    """From here on a signal comes too late: what was done is done, and is told."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_on_sigterm():
    """A plain `kill` ends a run as Ctrl-C does, once: what is under way is undone or recorded first."""
    import signal

    def stop(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def start():
    """Run this process's command line and end the process: what the console script and the packed programs call.

    When `main` returns, all is written and flushed and every child has ended: Python's own clearing up costs 5 ms more.
    """
    os._exit(main())


if __name__ == "__main__":
    start()
