"""Secrets out of text: what the program knows to be secret, and what looks like one by where it stands.

Redaction is the last net and not the first: passwords travel by environment, PGPASSFILE or stdin (DESIGN.md,
section 5). It is put over everything the program writes, because a server's message may quote what it was given.
"""

from __future__ import annotations

import re

MASK = "********"
# A shorter text is too common to be looked for everywhere.
SHORTEST = 4
# A line of a longer secret that is looked for on its own.
LONG_LINE = 16

# Words that make a setting's value a secret, and endings that do not (JWT_SECRET_TYPE, SSL_KEY_FILE, ...).
SECRET_WORDS = ("PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "CREDENTIAL")
SECRET_ENDS = ("_KEY", "_TOKEN")
HARMLESS_ENDS = (
    "_ALGORITHM",
    "_DIR",
    "_ENABLED",
    "_EXPIRES",
    "_EXPIRY",
    "_FILE",
    "_IN",
    "_LENGTH",
    "_NAME",
    "_PATH",
    "_ROLE",
    "_TTL",
    "_TYPE",
)
# What others call a secret where nothing stands before the word.
SECRET_KEYS = ("apikey", "auth", "authorization", "cookie", "jwt", "pass", "pwd", "sig", "signature", "token")

# The patterns are compiled at their first use: most commands write nothing that looks like any of them.

# scheme://user:password@host. The password ends at the last @ before the path, so that one with a bare @ goes whole;
# the second branch takes a password with a bare slash, but not a port that a path follows.
URL_PASSWORD = r"(?<=://)([^\s:/@?#\"']*):(?:([^\s/\"'<>]*)@|(?!\d*[/?#\s])([^\s\"'<>]*)@)"
# password=... of a conninfo string or a URL's query. With blanks around the sign it would be SQL.
QUERY_PASSWORD = r"(?i)(?<![a-z])((?:ssl|pg)?pass(?:word|wd)=)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&;,'\"]+)"
# A parameter of a URL's query, or of what follows its #.
PARAMETER = r"(?<=[?&#])([^\s=&#?\"'<>]+)=([^\s&#\"'<>]+)"
# ALTER ROLE ... PASSWORD '...'
ROLE_PASSWORD = r"(?is)(\bpassword\s+)(?:(?:e|u&)?'(?:[^'\\]|''|\\.)*'|(\$\w*\$).*?\2)"
HEADER = (
    r"(?i)((?:x-hasura-(?:admin-secret|access-key)|authorization|x-amz-security-token)[\"']?\s*[:=]\s*[\"']?)"
    r"(?:(?:bearer|basic)\s+)?[^\s\"',}]+"
)
# The secret key of `age`, which belongs into a file.
AGE_KEY = r"(?i)AGE-SECRET-KEY-1[0-9A-Z]+"


class Masked(str):
    """A text that holds what may be a secret: it is used as it is, and shown as `shown`, which does not."""

    __slots__ = ("shown",)
    shown: str

    def __new__(cls, text, shown):
        """A Masked `text`."""
        masked = super().__new__(cls, text)
        masked.shown = shown
        return masked


def shown_text(text):
    """What may be shown of a text, Masked or not."""
    return getattr(text, "shown", text)


def is_secret(name):
    """Whether a setting of this name holds a secret: *_PASSWORD, *_SECRET*, *_KEY, *_TOKEN and the like."""
    upper = name.upper()
    sounds_secret = upper.endswith(SECRET_ENDS) or any(word in upper for word in SECRET_WORDS)
    return sounds_secret and not upper.endswith(HARMLESS_ENDS)


def is_secret_key(name):
    """The same of a name that others gave, in any spelling: api_key, X-Api-Key, apiKey, token."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name)
    return is_secret(words) or words.lower() in SECRET_KEYS


def url_passwords(text):
    """The passwords that stand in URLs and conninfo strings in `text`, as written and with percent signs resolved."""
    found = []
    if "://" in text:
        found += [match[2] or match[3] for match in re.finditer(URL_PASSWORD, text)]
    if "pass" in text:
        found += [match[2].strip("'\"") for match in re.finditer(QUERY_PASSWORD, text)]
    forms = [form for password in found if password for form in (password, _percent_decoded(password))]
    return list(dict.fromkeys(forms))


def redact(text, secrets=()):
    """`text` with every secret replaced by a mask; see Redactor."""
    return Redactor(secrets)(text)


class Redactor:
    """A function from text to text without secrets.

    Arguments: `secrets`, the values known to be secret, each found as it is, percent-encoded, and as it stands
    inside SQL and JSON strings; values of fewer than four characters are not looked for. Passwords in URLs and
    conninfo strings, parameters of a URL, `PASSWORD '...'` of a role, and the headers that carry credentials go by
    their place.
    """

    def __init__(self, secrets=()):
        texts = {text for secret in secrets for text in _parts(secret) if len(text) >= SHORTEST and text.strip("*")}
        forms = {form for text in texts for form in _forms(text)}
        # The longest first, so that none is cut by a shorter one inside it.
        self.forms = sorted(forms, key=lambda form: (-len(form), form))

    def __call__(self, text):
        for form in self.forms:
            if form in text:
                text = text.replace(form, MASK)
        return _by_place(text)


def _by_place(text):
    if "://" in text:
        text = re.sub(URL_PASSWORD, rf"\1:{MASK}@", text)
    lowered = text.lower()
    if "pass" in lowered:
        text = re.sub(QUERY_PASSWORD, rf"\1{MASK}", text)
        text = re.sub(ROLE_PASSWORD, rf"\1'{MASK}'", text)
    if "=" in text and any(mark in text for mark in "?&#"):
        text = re.sub(PARAMETER, _masked_parameter, text)
    if "x-hasura-a" in lowered or "authorization" in lowered or "x-amz-s" in lowered:
        text = re.sub(HEADER, rf"\1{MASK}", text)
    if "age-secret-key-" in lowered:
        text = re.sub(AGE_KEY, MASK, text)
    return text


def _masked_parameter(match):
    name = _percent_decoded(match[1])
    # `?key=` is how Google's interfaces are called; elsewhere the word is too common.
    return f"{match[1]}={MASK}" if is_secret_key(name) or name.lower() == "key" else match[0]


def _parts(secret):
    """A secret, and what of a secret of many lines (a PEM key) is telling on its own."""
    yield from (secret, secret.strip())
    yield from (line for line in secret.splitlines() if len(line) >= LONG_LINE)


def _forms(secret):
    """The spellings of one secret in URLs (all or all but the slashes encoded), JSON and SQL strings."""
    encoded = _percent_encoded(secret, "")
    slashed = _percent_encoded(secret, "/")
    json_text = secret.replace("\\", "\\\\").replace('"', '\\"')
    for char, escape in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        json_text = json_text.replace(char, escape)
    yield from (secret, encoded, slashed, json_text, secret.replace("'", "''"))
    yield from (_lower_hex(encoded), _lower_hex(slashed), encoded.replace("%20", "+"))


# urllib.parse would do the next three, but importing it costs more than all redaction of a command.


def _percent_encoded(text, safe):
    kept = b"-._~" + safe.encode()
    return "".join(
        chr(byte) if byte < 0x80 and chr(byte).isalnum() or byte in kept else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogatepass")
    )


def _lower_hex(encoded):
    return re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)


def _percent_decoded(text):
    def resolved(match):
        return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace")

    return re.sub(r"(?:%[0-9A-Fa-f]{2})+", resolved, text)
