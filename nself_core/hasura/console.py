"""The engine's own console behind a proxy of ours on this computer: the browser never holds the admin secret.

One request a connection, a thread each. Bodies go through in pieces, websockets as bytes. Of what the engine says only
the console's page is changed: it is told that there is no secret to ask for.
"""

from __future__ import annotations

import os
import threading
import time
from collections import namedtuple

from nself_core import http
from nself_core.failures import CheckFailed, Failure, UsageFailure
from nself_core.hasura import console_gate
from nself_core.hasura.api import HasuraApi
from nself_core.hasura.reach import find_engine
from nself_core.hasura.synced import make_own_folder
from nself_core.output import Report
from nself_core.plan import Plan, Step

PORT = 9695  # where hasura-cli's console is, too
ADDRESS = "127.0.0.1"
PIECE = 64 * 1024
MAX_PAGE = 4 * 1024 * 1024  # of the console's page, which is held to be rewritten
MAX_READ = 64 * 1024 * 1024  # of a request that a read-only console must look into
HEAD_SECONDS = 60  # for a browser to send what it began
ANSWER_SECONDS = 600  # for the engine to send the next piece: metadata of thousands of tables takes minutes
TICK = 0.2

Job = namedtuple("Job", "engine port is_fixed read_only browse idle folder")
Job.__doc__ = """What is to be served.

`engine`, a reach.Engine; `port`, and `is_fixed`, whether no other will do; `read_only`; `browse`, whether
a browser is opened; `idle`, seconds without a request after which it ends, None for never; `folder`, where the page may
lie that leads the browser here.
"""


def plan_console(settings, args):
    """The Plan of `hasura console`, with one Step whose work is a Job.

    Arguments: `args`, with port, no_browser, read_only, rw, idle. Raises UsageFailure for --read-only with --rw, and
    what reach.find_engine raises.
    """
    if args.read_only and args.rw:
        raise UsageFailure("--read-only and --rw exclude each other")
    read_only = args.read_only or (settings.is_prod and not args.rw)
    mode = "read-only" if read_only else "read-write"
    engine, port = find_engine(settings), PORT if args.port is None else args.port
    folder = os.path.join(settings.root, ".nself")
    job = Job(engine, port, args.port is not None, read_only, not args.no_browser, args.idle, folder)
    title = f"serve the console of {engine.where} at http://{ADDRESS}:{port}, {mode}"
    return Plan([Step("console", title, mode=mode, work=job)])


def serve(job, console):
    """Serve until Ctrl-C, the normal end, and return the Report.

    Argument: `console`, the program's own, which is told where to look. Raises Unreachable, CredentialsRefused,
    CheckFailed for an engine that serves no console, and UsageFailure for a port that is taken.
    """
    api = HasuraApi(job.engine.endpoint, job.engine.secret, dial=job.engine.dial)
    before = api.export_metadata()
    for warning in check_page(job.engine):
        console.warn(warning)
    proxy = Proxy(job, console.detail)
    try:
        proxy.start()
        _invite(proxy, job, console)
        proxy.wait()
    except KeyboardInterrupt:
        pass  # how a console is ended
    finally:
        proxy.close()
    return _told(job, proxy, before, *_metadata_after(api))


def _metadata_after(api):
    """The metadata when the console ends, and a warning where it cannot be had any more."""
    try:
        return api.export_metadata(), None
    except Failure as failure:
        return None, f"whether the console changed the metadata is not known: {failure.message}"


def _told(job, proxy, before, after, warning):
    """The Report of a console that has ended. Every reload counts as a version: so the documents are compared."""
    changed = after is not None and after["metadata"] != before["metadata"]
    versions = {"before": before["resource_version"], "after": after["resource_version"] if after else None}
    data = {
        "endpoint": job.engine.endpoint, "port": proxy.port, "read_only": job.read_only, "changed": changed,
        "resource_version": versions,
    }  # fmt: skip
    summary = "the console has ended; the metadata is as it was"
    if changed:
        said = f"the metadata has changed since the console was opened (resource version {versions['before']} to"
        summary = f"{said} {versions['after']}): take it over with nself-db hasura git pull"
    elif after is None:
        summary = "the console has ended"
    return Report(data, (), summary, [warning] if warning else [])


# Before it begins.


def check_page(engine):
    """Ask for the console's page; returns warnings about its assets. Raises CheckFailed where there is none."""
    import re

    def ask(method, path):
        return http.request(method, engine.endpoint + path, timeout=30, secrets=(engine.secret,), dial=engine.dial)

    answer = ask("GET", "/console")
    page = answer.body.decode("utf-8", "replace")
    if answer.status != 200 or "window.__env" not in page:
        raise CheckFailed(
            f"the engine at {engine.where} serves no console ({answer.status})",
            "set HASURA_GRAPHQL_ENABLE_CONSOLE=true for the engine and start it anew",
        )
    offline = "HASURA_GRAPHQL_CONSOLE_ASSETS_DIR=/srv/console-assets for the engine"
    if re.search(r"""["']?cdnAssets["']?\s*:\s*["']?true""", page):
        return [f"the console's page loads its scripts from the internet; where there is none, set {offline}"]
    asset = re.search(r"""<script[^>]+src=["'](/console/assets/[^"'?#]+)""", page)
    if asset and ask("HEAD", asset.group(1)).status >= 400:
        return [f"the engine does not serve the console's assets: set {offline}"]
    return []


def _invite(proxy, job, console):
    """Say where the console is, and open a browser there."""
    if proxy.port != job.port and job.port:
        console.note(f"port {job.port} is taken")
    mode = "read-only" if job.read_only else "read-write"
    opened = job.browse and _open_doorway(proxy, job.folder)
    place = "in your browser" if opened else "at this link, which works once"
    console.note(f"The console of {job.engine.where} ({mode}) opens {place}:\n  {proxy.link}\nCtrl-C ends it.")


def _open_doorway(proxy, folder):
    """Open a browser at a page that leads to the link; false where that cannot be written, or there is none."""
    try:
        return open_browser(proxy.write_doorway(folder))
    except (OSError, Failure):
        return False


def open_browser(path):
    """Open the page `path` in the user's browser; whether there was one to ask."""
    import subprocess
    import sys

    from nself_core import processes

    has_screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    names = (os.environ.get("BROWSER"), "open" if sys.platform == "darwin" else "xdg-open", "sensible-browser")
    programs = [processes.find_program(name) for name in names if name] if has_screen else []
    program = next(filter(None, programs), None)
    if program is None:
        return False
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)

    def run():
        try:
            processes.run([program, path], **quiet)
        except Failure:
            return  # the link has been printed

    threading.Thread(target=run, daemon=True).start()
    return True


# The proxy.


class Proxy:
    """The proxy of a Job, which listens from the beginning and serves when it has been started.

    Argument: `tell(text)`, called for each request with its method, path and status. Raises UsageFailure where a port
    that must be is taken.
    """

    def __init__(self, job, tell=None):
        self.job = job
        self.tell = tell or (lambda text: None)
        self.lock = threading.Lock()
        self.open_requests = 0
        self.last_request = time.monotonic()
        self._doorway = ""
        self._started = False
        self._token = os.urandom(24).hex()
        self._server = self._listen()
        self.gate = console_gate.Gate(self.port, self._token, os.urandom(24).hex())

    @property
    def port(self):
        """The port it listens on."""
        return self._server.server_address[1]

    @property
    def link(self):
        """The address that lets one browser in, once; a parameter named `token` would be masked where it is told."""
        return f"http://{ADDRESS}:{self.port}/?entry={self._token}"

    def start(self):
        """Serve, in threads."""
        self._started = True
        threading.Thread(target=self._server.serve_forever, args=(TICK,), daemon=True).start()

    def _listen(self):
        from nself_core.hasura.console_handler import server_on

        try:
            return server_on(ADDRESS, self.job.port, self)
        except OSError as error:
            if self.job.is_fixed:
                raise UsageFailure(
                    f"port {self.job.port} cannot be had: {error.strerror}", "choose another with --port"
                ) from None
            return server_on(ADDRESS, 0, self)

    def wait(self):
        """Return when nothing was asked for as long as the Job says, and nothing is under way."""
        while not self._is_idle():
            time.sleep(TICK)

    def _is_idle(self):
        idle = self.job.idle
        return idle is not None and not self.open_requests and time.monotonic() - self.last_request > idle

    def begin(self):
        """Count a request that has come."""
        with self.lock:
            self.open_requests += 1

    def end(self):
        """Count a request that is over."""
        with self.lock:
            self.open_requests -= 1
            self.last_request = time.monotonic()

    def enter(self, token):
        """Whether the link's token is good; it is no more after that, and the page that led here is gone."""
        with self.lock:
            entered = self.gate.take_token(token)
        if entered:
            self._remove_doorway()
        return entered

    def write_doorway(self, folder):
        """Write the page that leads a browser to the link, for its owner alone, and return its path.

        A browser's arguments can be read by everybody on this computer; so they name a file, and not the link.
        """
        make_own_folder(folder)
        place = os.path.join(folder, "console")
        os.makedirs(place, mode=0o700, exist_ok=True)
        with open(os.path.join(place, ".gitignore"), "w", encoding="utf-8") as file:
            file.write("*\n")
        path = os.path.join(place, f"{self.port}.html")
        if os.path.lexists(path):
            os.remove(path)  # left by one that was killed: the port is ours now
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(REDIRECT.format(target=self.link))
        self._doorway = path
        return path

    def _remove_doorway(self):
        path, self._doorway = self._doorway, ""
        if path and os.path.exists(path):
            os.remove(path)

    def close(self):
        """End it. What is under way is cut off."""
        self._remove_doorway()
        if self._started:
            self._server.shutdown()
        self._server.server_close()


# By a page and not by a redirect: a cookie that is SameSite=Strict is not sent along a chain that began elsewhere.
REDIRECT = (
    '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
    '<meta http-equiv="refresh" content="0; url={target}"><title>Hasura console</title>\n'
)
