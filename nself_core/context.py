"""What a handler is given: the settings, the database and the console of one command, and who performs its steps.

This room stands right below the face and above all groups: it imports each inside the function that needs it, so that
a command pays for its own group only.
"""

from __future__ import annotations

import os
import sys

from nself_core.failures import Failure


class Context:
    """One command under way: its settings, its database and its console, each made when first asked for."""

    def __init__(self, command, args, console):
        self.command = command
        self.args = args
        self.console = console
        self._settings = None
        self._databases = []
        self._hasura = None
        self._reloads = False

    @property
    def settings(self):
        """The settings of the chosen environment."""
        if self._settings is None:
            from nself_core.settings import load_settings

            args = self.args
            self._settings = load_settings(args.project, args.env, args.url)
            self.console.add_secrets(self._settings.secrets)
            for name, shown, source in self._settings.describe() if args.verbose else ():
                self.console.detail(f"{name}={shown}  ({source})")
        return self._settings

    @property
    def database(self):
        """The database of the chosen environment; connected with the first question."""
        if not self._databases:
            self._databases.append(self._open(self.settings))
        return self._databases[0]

    def other_database(self, env):
        """The database of another environment, as (settings, Database)."""
        settings = self.settings.for_env(env)
        self.console.add_secrets(settings.secrets)
        database = self._open(settings)
        self._databases.append(database)
        return settings, database

    def _open(self, settings):
        from nself_core.postgres.database import Database

        return Database(settings, self.command, self.console.sql, self.args.driver)

    def execute(self, plan, performers):
        """Show or perform a plan."""
        from nself_core.plan import execute

        return execute(plan, performers, self.args.dry_run, self._consent)

    def _consent(self, plan):
        """Ask before destroying; `down`, `repair` and `reset-checksum` ask only in prod (issue 2)."""
        from nself_core.consent import Target, confirm

        if not self.settings.is_prod and not plan.asks_everywhere:
            return
        for warning in plan.warnings:
            self.console.warn(warning)  # who is asked is to know them; none is told twice
        where = plan.where or self.database.where
        name = None if plan.where else self.database.name
        target = Target(self.settings.env, where, name, self.settings.project_name)
        confirm(
            self.console,
            target,
            plan.loses,
            force=self.args.force,
            confirm_name=self.args.confirm,
            environ=os.environ,
            stdin=sys.stdin,
        )

    def with_reload(self, plan, facts, args, comes=False):
        """The plan, followed by the reload of Hasura's metadata where there is a Hasura and it is wanted.

        Argument: `comes`, whether the plan may bring metadata into the database, whatever `facts` say of it now.
        """
        from nself_core.migrations import reload

        if args.skip_metadata:
            return plan
        reloaded = reload.after(plan, facts["metadata"] or comes, self.settings)
        self._reloads = reloaded is not plan
        return reloaded

    def migration_performers(self, direction, args, choose_again=None):
        """What performs the steps of `migrate up` and `migrate down`; see runner.Options for the arguments."""
        return {
            "migration": lambda steps: self._run_migrations(steps, direction, args, choose_again),
            "reload": self._reload_metadata,
        }

    def _run_migrations(self, steps, direction, args, choose_again):
        from nself_core.migrations import live_api, runner

        known = {}

        def guard(facts):
            known.update(facts)
            return live_api.open_guard(self.database, facts, self.settings, args.allow_inconsistent)

        options = runner.Options(direction, args.lock_wait, guard, self.console.progress, choose_again)
        try:
            report = runner.run(self.database, [step.work for step in steps], options)
        except Failure as failure:
            self._reload_after(failure)
            raise
        if direction == "up" and self.settings.is_prod and not known.get("protected", True):
            self.console.note("this database is not protected from drop, reset and restore: nself-db protect")
        return report

    def _reload_after(self, failure):
        """Reload the metadata also where a run failed after it had changed something."""
        if self._reloads and any((failure.data or {}).get(name) for name in ("applied", "rolled_back")):
            report = self._reload_metadata(())
            failure.data.update(report.data)
            failure.warnings = (*failure.warnings, *report.warnings)

    def _reload_metadata(self, steps):
        from nself_core.migrations import reload

        return reload.perform(self.settings)

    def sql_performers(self):
        """What performs steps of plain SQL on the bookkeeping, under the migration lock."""
        from nself_core.migrations import repair

        return {"sql": lambda steps: repair.perform(self.database, steps, self.console.progress)}

    def seed_programs(self):
        """What runs the seeds that are programs."""
        from nself_core.seeds.typescript import Programs

        return Programs(self.settings, self.console.note)

    def seed_performers(self, args):
        """What performs the steps of `seed run`."""
        from nself_core.seeds import runner

        options = runner.Options(self.settings.env, args.lock_wait, args.changed, self.console.progress)
        return {"seed": lambda steps: runner.run(self.database, steps, options)}

    def backup_performers(self):
        """What performs the steps of `backup`."""
        return {"backup": lambda steps: self._take_backup(steps[0].work), "upload": self._upload_backup}

    def _upload_backup(self, steps):
        import time

        from nself_core.backups import send

        tell = self.console.progress_bytes
        return send.perform_upload(steps[0].work, lambda done, total: tell(done, total, "sent"), time.monotonic)

    def _take_backup(self, job):
        from nself_core.backups import take

        label = take.progress_label(job)
        return take.take(self.database, job, lambda done: self.console.progress_bytes(done, None, label))

    def safety_plan(self, facts, label):
        """The plan of the backup that is taken before something is destroyed."""
        from nself_core.backups import take

        return take.plan_backup(self.settings, facts, take.Options(label, "custom", None, None, False))

    def with_backup(self, plan, label):
        """The plan with a backup before it, where it has anything to do."""
        from nself_core.backups.manifest import read_facts

        if not plan.steps:
            return plan
        return plan._replace(steps=[*self.safety_plan(read_facts(self.database), label).steps, *plan.steps])

    def restore_performers(self, name):
        """What performs the steps of `restore`; `name`, the database's."""
        from nself_core.backups import exchange, fetch, in_place, restore

        database, tell = self.database, self.console.progress
        return {
            "reopen": lambda steps: exchange.perform_reopen(database, steps[0]),
            "fetch": lambda steps: fetch.perform(database, steps[0], tell),
            "restore": lambda steps: restore.perform(database, steps[0].work, self._take_backup, tell),
            "in place": lambda steps: in_place.perform(database, steps[0].work, self._take_backup, tell),
            "undo": lambda steps: restore.perform_undo(database, steps[0], tell),
            "clean": lambda steps: restore.perform_clean(database, name, steps, tell),
            "reload": self._reload_metadata,
        }

    def drop_performers(self, args):
        """What performs the steps of `drop`."""
        from nself_core.teardown import perform

        drop = {"drop": lambda steps: perform.drop(self.database, steps, args.lock_wait, self.console.progress)}
        return {**drop, **self.backup_performers()}

    def reset_performers(self, args):
        """What performs the steps of `reset`: those of `drop`, of `migrate up`, and of `seed run`."""
        from nself_core import reset

        performers = {**self.drop_performers(args), **self.migration_performers("up", args)}
        return reset.told_after_drop({**performers, "seed": lambda _: self._seed_anew(args)})

    def _seed_anew(self, args):
        """Run the seeds of a reset, whose order depends on tables that are there only now."""
        from nself_core.seeds import runner, survey

        found = survey.survey(self.settings, self.database, self.seed_programs())
        plan = survey.plan_run(found, self.database, False, self.settings.env)
        options = runner.Options(self.settings.env, args.lock_wait, False, self.console.progress)
        return runner.run(self.database, plan.steps, options)

    def seeds_of_reset(self):
        """The plan of the seeds that a reset runs; what is wrong with them is found before anything is dropped."""
        from nself_core.seeds import survey

        return survey.plan_after_reset(self.settings, self.seed_programs())

    def protect_performers(self, args):
        """What performs the step of `protect`."""
        from nself_core.teardown import protect

        return {
            "protection": lambda steps: protect.perform(self.database, steps, args.lock_wait, self.console.progress)
        }

    def shell_performers(self):
        """What performs the steps of `shell`; each has one step."""
        from nself_core import shell as room

        return {
            "reader": lambda steps: room.install_reader(self.database, steps[0]),
            "statement": lambda steps: room.run_statement(self.database, steps[0]),
            "terminal": lambda steps: room.open_terminal(self.database, steps[0], self.console.warn),
        }

    def fixture_performers(self):
        """What performs the steps of `fixtures run` and `fixtures verify`."""
        from nself_core.fixtures import clone, load

        args, console = self.args, self.console
        return {
            "fixture": lambda steps: load.run(self.database, [step.work for step in steps], args.commit),
            "clone": lambda steps: clone.run(self.database, steps, console.note, console.progress, args.json),
            "verify": lambda steps: load.verify(self.database, steps),
        }

    @property
    def hasura(self):
        """Hasura's engine of the chosen environment."""
        if self._hasura is None:
            from nself_core.hasura.reach import open_api

            self._hasura = open_api(self.settings)
        return self._hasura

    def hasura_performers(self):
        """What performs the steps of `hasura metadata` and `hasura git`."""
        from nself_core.hasura import apply, checking, tree_writer, verdict

        root = self.settings.root
        return {
            "metadata": lambda steps: apply.perform(self.hasura, steps[0].work, self._record_metadata),
            "reload metadata": lambda _: verdict.reload(self.hasura, self.metadata_if_readable),
            "lint": lambda steps: checking.look_again(self.settings, steps[0].work),
            "tree": lambda steps: tree_writer.perform(root, [step.work for step in steps]),
        }

    def _record_metadata(self, document, version):
        """Keep what both sides have after an apply."""
        from nself_core.hasura import synced, tree_writer

        base = synced.Base(self.hasura.get_catalog_state()["id"], version, document)
        tree_writer.record(self.settings, base)

    def metadata_if_readable(self):
        """The project's metadata files, or None: where they only say where something stands."""
        from nself_core.hasura import comparison

        try:
            return comparison.read_local(self.settings)
        except Failure:
            return None

    def finish(self):
        """Let the sessions end while the report is written."""
        for database in self._databases:
            database.finish()

    def close(self):
        """End the sessions."""
        for database in self._databases:
            database.close()
