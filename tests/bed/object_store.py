"""A real and strict S3 server: OpenStack Swift with its s3api, in a virtual environment of its own that is cached.

Or any other server: with NSELF_S3_TEST_URL, NSELF_S3_TEST_BUCKET, NSELF_S3_TEST_ACCESS_KEY and
NSELF_S3_TEST_SECRET_KEY (and NSELF_S3_TEST_REGION where it is not us-east-1) the same tests run against that one.
"""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

from .gaps import Gap
from .local_processes import free_port, quiet_run, start_logged, wait_until
from .session import exclusive, remove_folder

VERSION = "2.38.3"
ACCESS_KEY, SECRET_KEY = "probe:user", "s3cret/for+tests"  # tempauth takes no blank
BUCKET = "nself-tests"
SERVICES = ("account", "container", "object")
PLAIN_FILTERS = (
    "catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "copy", "slo", "dlo", "symlink"
)  # fmt: skip

SWIFT = """
[swift-hash]
swift_hash_path_suffix = t
swift_hash_path_prefix = t
[storage-policy:0]
name = p0
default = yes
"""

SERVICE = """
[DEFAULT]
devices = {folder}/dev
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}/etc
log_level = WARNING
recon_cache_path = {folder}/cache
fallocate_reserve = 0
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}/etc
log_level = INFO
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo \
versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:tempauth]
use = egg:swift#tempauth
user_{account} = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
check_bucket_owner = false
dns_compliant_bucket_names = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
""" + "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in PLAIN_FILTERS)


class GivenStore:
    """The server that NSELF_S3_TEST_URL names; its bucket must be there."""

    def __init__(self):
        self.endpoint = os.environ["NSELF_S3_TEST_URL"]
        self.bucket = os.environ.get("NSELF_S3_TEST_BUCKET", BUCKET)
        self.access_key = os.environ["NSELF_S3_TEST_ACCESS_KEY"]
        self.secret_key = os.environ["NSELF_S3_TEST_SECRET_KEY"]
        self.region = os.environ.get("NSELF_S3_TEST_REGION", "us-east-1")

    def close(self):
        """Nothing of it is ours to end."""


class SwiftStore:
    """A running Swift with one empty bucket, reached at `endpoint` by `access_key` and `secret_key`.

    Raises Gap where it cannot be installed, or where no folder of ours can hold what it stores.
    """

    bucket, access_key, secret_key, region = BUCKET, ACCESS_KEY, SECRET_KEY, "us-east-1"

    def __init__(self, session):
        self._programs = _installed(session.cache / "swift")
        self._folder = session.make_folder("swift")
        self._ports = {"proxy": free_port(), **{name: free_port() for name in SERVICES}}
        self.port = self._ports["proxy"]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        for name in ("etc", "dev/d1", "run", "cache"):
            (self._folder / name).mkdir(parents=True)
        _want_attributes(self._folder / "dev")
        self._configure()
        self._processes = [self._start(name) for name in (*SERVICES, "proxy")]
        wait_until(self._answers, 30, self._said)

    def pause(self):
        """Have the proxy hang until `go_on`: it takes connections and says nothing."""
        self._processes[-1].send_signal(signal.SIGSTOP)

    def go_on(self):
        """End `pause`."""
        self._processes[-1].send_signal(signal.SIGCONT)

    def close(self):
        """End its four processes and remove what it stored."""
        for process in reversed(self._processes):
            process.kill()
            process.wait(20)
        remove_folder(self._folder)

    def _configure(self):
        etc = self._folder / "etc"
        facts = {"folder": self._folder, "user": getpass.getuser()}
        (etc / "swift.conf").write_text(SWIFT, encoding="utf-8")
        account = ACCESS_KEY.replace(":", "_")
        proxy = PROXY.format(port=self.port, account=account, secret=SECRET_KEY, **facts)
        (etc / "proxy-server.conf").write_text(proxy, encoding="utf-8")
        for name in SERVICES:
            text = SERVICE.format(name=name, port=self._ports[name], **facts)
            (etc / f"{name}-server.conf").write_text(text, encoding="utf-8")
            device = f"r1z1-127.0.0.1:{self._ports[name]}/d1"
            for words in (("create", "4", "1", "0"), ("add", device, "1"), ("rebalance",)):
                quiet_run([self._programs / "swift-ring-builder", f"{name}.builder", *words], cwd=etc)

    def _start(self, name):
        command = [self._programs / f"swift-{name}-server", self._folder / "etc" / f"{name}-server.conf", "-v"]
        environment = {**os.environ, "SWIFT_DIR": str(self._folder / "etc")}
        log = self._folder / "run" / f"{name}.log"
        process = start_logged(command, log, cwd=self._folder, env=environment, start_new_session=True)
        (self._folder / f"swift-{name}.pid").write_text(str(process.pid), encoding="utf-8")
        return process

    def _answers(self):
        if any(process.poll() is not None for process in self._processes):
            raise RuntimeError(self._said())
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthcheck", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def _said(self):
        logs = sorted((self._folder / "run").glob("*.log"))
        return "\n".join(log.read_text(encoding="utf-8", errors="replace")[-2000:] for log in logs)


def object_store(session):
    """The store that the environment names, else a Swift of this run. Raises Gap."""
    return GivenStore() if os.environ.get("NSELF_S3_TEST_URL") else SwiftStore(session)


def _installed(folder):
    """The folder of Swift's programs, installed into the cache once for each version and Python."""
    folder.mkdir(exist_ok=True)
    name = f"{VERSION}-py{sys.version_info[0]}.{sys.version_info[1]}"
    place, done = folder / name, folder / f"{name}.done"
    with exclusive(folder / f"{name}.lock"):
        if not done.exists():
            try:
                quiet_run([sys.executable, "-m", "venv", "--clear", place])
                quiet_run([place / "bin" / "python", "-m", "pip", "install", "--quiet", f"swift=={VERSION}"])
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                last_line = str(error).strip().splitlines()[-1]
                raise Gap("an S3 server", f"Swift {VERSION} cannot be installed: {last_line}") from error
            done.touch()
    return place / "bin"


def _want_attributes(folder):
    try:
        os.setxattr(folder, "user.nself", b"1")
    except (AttributeError, OSError) as error:
        raise Gap("an S3 server", f"Swift wants user attributes of files in {folder}: {error}") from error
