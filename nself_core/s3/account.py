"""Which object store is meant, and by which keys: STORAGE_*, else BACKUP_S3_*, S3_*, then the stack's own MinIO."""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import CredentialsRefused, UsageFailure
from nself_core.s3.signing import Keys, encoded

REGION = "us-east-1"  # an empty one in a signature fails everywhere; MinIO and its like take this one
MINIO_PORT = 9000
OWN_NAMES = (".amazonaws.com", ".amazonaws.com.cn")  # where a bucket has a host of its own
LONGEST_KEY = 1024  # bytes, by S3's own rule

# Each setting with what it falls back to.
ENDPOINT = ("STORAGE_ENDPOINT", "BACKUP_S3_ENDPOINT", "S3_ENDPOINT")
BUCKET = ("STORAGE_BUCKET", "BACKUP_S3_BUCKET", "S3_BUCKET")
REGIONS = ("STORAGE_REGION", "BACKUP_S3_REGION", "S3_REGION", "MINIO_REGION")
PREFIX = ("STORAGE_PREFIX", "BACKUP_S3_PREFIX", "S3_PREFIX")
PATH_STYLE = ("STORAGE_FORCE_PATH_STYLE", "BACKUP_S3_FORCE_PATH_STYLE", "S3_FORCE_PATH_STYLE")
# Keys go by pairs: one of the one account with one of the other would be refused without telling why.
KEYS = (
    ("STORAGE_ACCESS_KEY", "STORAGE_SECRET_KEY", "STORAGE_SESSION_TOKEN"),
    ("BACKUP_S3_ACCESS_KEY", "BACKUP_S3_SECRET_KEY", "BACKUP_S3_SESSION_TOKEN"),
    ("BACKUP_S3_ACCESS_KEY_ID", "BACKUP_S3_SECRET_ACCESS_KEY", "BACKUP_S3_SESSION_TOKEN"),
    ("S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_SESSION_TOKEN"),
    ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MINIO_SESSION_TOKEN"),
)

Place = namedtuple("Place", "scheme host path")
Place.__doc__ = "Where one request goes: `host` with its port as Host says it, `path` percent-encoded."


class Account(namedtuple("Account", "endpoint bucket region keys prefix is_path_style")):
    """One bucket of one server.

    `endpoint`, a Place; `keys`, of signing; `prefix`, what the names of a project's objects begin with, "" or ending
    in a slash; `is_path_style`, whether the bucket stands in the path and not in the host's name.
    """

    __slots__ = ()

    def __str__(self):
        return f"bucket {self.bucket} at {self.endpoint.scheme}://{self.endpoint.host}{self.endpoint.path}"

    def place(self, key=None):
        """The Place of an object, or of the bucket. Raises UsageFailure for a key that S3 cannot hold."""
        scheme, host, path = self.endpoint
        if self.is_path_style:
            path += "/" + encoded(self.bucket)
        else:
            host = f"{self.bucket}.{host}"
        return Place(scheme, host, path + "/" + _encoded_key(key) if key is not None else path or "/")


def _encoded_key(key):
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= LONGEST_KEY:
        raise UsageFailure(f"{ascii(key)[:80]} cannot be an object's key: it is 1 to {LONGEST_KEY} bytes of UTF-8")
    return encoded(key, "/")


def read_account(settings):
    """The Account that the settings name.

    Raises UsageFailure where no bucket is set or an address is none, CredentialsRefused where keys are missing.
    """
    bucket = _first(settings, BUCKET) or settings.require(BUCKET[0])
    region = _first(settings, REGIONS) or REGION
    return make_account(
        _first(settings, ENDPOINT) or _default_endpoint(settings, region),
        bucket,
        _keys(settings),
        region=region,
        prefix=_first(settings, PREFIX) or "",
        is_path_style=_path_style(settings),
    )


def make_account(endpoint, bucket, keys, *, region=REGION, prefix="", is_path_style=None):
    """An Account of its facts; `is_path_style` None leaves that to the endpoint. Raises UsageFailure."""
    place = _endpoint(endpoint)
    if not bucket or not bucket.isascii() or not bucket.replace("-", "a").replace(".", "a").replace("_", "a").isalnum():
        raise UsageFailure(f"{ascii(bucket)} cannot be the name of a bucket")
    if is_path_style is None:
        is_path_style = not _has_own_name(place.host, bucket)
    prefix = prefix.strip("/")
    return Account(place, bucket, region, keys, prefix + "/" if prefix else "", is_path_style)


def _first(settings, names):
    return next((value for value in map(settings.get, names) if value), None)


def _default_endpoint(settings, region):
    if settings.get("MINIO_PORT") or settings.get("MINIO_ROOT_USER"):
        return f"http://localhost:{settings.integer('MINIO_PORT', MINIO_PORT)}"
    return f"https://s3.{region}.amazonaws.com"


def _keys(settings):
    for names in KEYS:
        access_key, secret_key, token = map(settings.get, names)
        if access_key or secret_key:
            missing = names[0] if not access_key else names[1] if not secret_key else None
            if missing:
                raise CredentialsRefused(f"{missing} is not set", f"set it in {settings.own_file} or the environment")
            return Keys(access_key, secret_key, token)
    raise CredentialsRefused(
        "STORAGE_ACCESS_KEY and STORAGE_SECRET_KEY are not set", f"set them in {settings.own_file} or the environment"
    )


def _path_style(settings):
    value = (_first(settings, PATH_STYLE) or "").lower()
    if value and value not in ("true", "false", "1", "0", "yes", "no"):
        raise UsageFailure(f"{PATH_STYLE[0]} is neither true nor false")
    return value in ("true", "1", "yes") if value else None


def _endpoint(text):
    """The Place of an endpoint: no default port, for Host is signed as it is sent."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # a port that is no number, a bracket left open
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageFailure("the storage endpoint is not an http address", "such as https://s3.us-east-1.amazonaws.com")
    if parts.username is not None:
        raise UsageFailure(
            "the storage endpoint holds a user or password", "keys stand in STORAGE_ACCESS_KEY and STORAGE_SECRET_KEY"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = port in (None, {"http": 80, "https": 443}[parts.scheme])
    return Place(parts.scheme, host if is_default else f"{host}:{port}", parts.path.rstrip("/"))


def _has_own_name(host, bucket):
    # A certificate for *.s3.amazonaws.com does not cover a name with another dot; capitals are no part of a host.
    return host.endswith(OWN_NAMES) and "." not in bucket and "_" not in bucket and bucket == bucket.lower()
