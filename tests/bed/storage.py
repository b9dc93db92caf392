"""A test's own place in the object store: the settings that lead nself-db there, and a look at what lies in it."""

from __future__ import annotations

import itertools
import json
import os

from nself_core.s3.account import make_account
from nself_core.s3.client import Asked
from nself_core.s3.multipart import abort_upload, find_uploads
from nself_core.s3.signing import Keys
from nself_core.s3.store import Store

_numbers = itertools.count(1)


class Storage:
    """Below `prefix` in the bucket of a server of the bed; `store` is a Store that reaches it."""

    def __init__(self, server):
        self.server = server
        self.prefix = f"b{os.getpid()}-{next(_numbers)}/"
        keys = Keys(server.access_key, server.secret_key, None)
        account = make_account(server.endpoint, server.bucket, keys, region=server.region)
        self.store = Store(account, tries=10, first_pause=0.2)  # a loaded machine's Swift may be busy for seconds
        self.store.client.ask(Asked("PUT"), accepts=(409,))

    def settings(self, **changes):
        """The environment variables under which nself-db reaches it; `changes` replace some, by their last word."""
        values = {
            "ENDPOINT": self.server.endpoint,
            "BUCKET": self.server.bucket,
            "REGION": self.server.region,
            "ACCESS_KEY": self.server.access_key,
            "SECRET_KEY": self.server.secret_key,
            "PREFIX": self.prefix,
        }
        return {f"STORAGE_{name}": value for name, value in {**values, **changes}.items()}

    def keys(self):
        """The keys there, without the prefix, sorted."""
        return [entry.key[len(self.prefix) :] for entry in self.store.find_objects(self.prefix)]

    def uploads(self):
        """The keys of uploads that were begun and never completed."""
        return [each.key[len(self.prefix) :] for each in find_uploads(self.store, self.prefix)]

    def get(self, key):
        """The bytes of an object."""
        return self.store.get(self.prefix + key)

    def manifest(self, key):
        """The manifest of the backup of this key."""
        return json.loads(self.get(key + ".json"))

    def put(self, key, data, meta=None):
        """Store bytes."""
        self.store.put(self.prefix + key, data, meta)

    def delete(self, key):
        """Remove an object."""
        self.store.delete(self.prefix + key)

    def close(self):
        """Remove all of it."""
        self.store.delete_all([entry.key for entry in self.store.find_objects(self.prefix)])
        for each in find_uploads(self.store, self.prefix):
            abort_upload(self.store, each)
