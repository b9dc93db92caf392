"""Values of a metadata document without the secrets in them, as they may be shown.

A secret goes by its place: in a header or a connection is masked all that is not known to be harmless there, elsewhere
what stands under a key that names a secret. Of other texts it is what redaction knows, such as a password in a URL.
"""

from __future__ import annotations

from nself_core.hasura.objects import ABSENT, HIDDEN, below, kind_of
from nself_core.redaction import MASK, redact

# What stands deeper inside a value than so many levels is not shown: nobody reads it, and it must not end the program.
DEEPEST = 60


def masked(spec, value, depth=0):
    """A copy of a value of `spec` without its secrets; None for ABSENT.

    Argument: `depth`, how many lists and mappings it stands in.
    """
    if value is ABSENT:
        return None
    if isinstance(value, (dict, list)) and depth > DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {key: masked(below(spec, value, key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(below(spec, value, index), item, depth + 1) for index, item in enumerate(value)]
    return MASK if _is_secret(spec, value) else redact(value) if isinstance(value, str) else value


def _is_secret(spec, value):
    """Whether a text or a number is a secret by its place; a secret of digits is a number in YAML."""
    if value is None or isinstance(value, bool):
        return False
    kind = kind_of(spec, value)
    return spec is HIDDEN or (spec.guards and (kind is None or kind.form in ("secret", "opaque")))
