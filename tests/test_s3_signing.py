"""Signature Version 4: AWS' published vectors, AWS' S3 example, and botocore as an oracle."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest
from bed.gaps import SHARED, wants_shared
from bed.projects import REPOSITORY
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.s3 import signing
from nself_core.s3.account import make_account
from nself_core.s3.signing import Keys, Scope, canonical_request, query_string, signed_headers

VECTORS = SHARED / "sigv4"
SUITE_KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
SUITE_SCOPE = Scope("20150830T123600Z", "us-east-1", "service")
EXAMPLE_KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None)
EXAMPLE_SCOPE = Scope("20130524T000000Z", "us-east-1", "s3")
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def signed(method, path, query, headers, payload=b"", keys=SUITE_KEYS, scope=SUITE_SCOPE):
    """Canonical request, string to sign and signature."""
    canonical = canonical_request(method, path, query, headers, signing.sha256_hex(payload))
    text = signing.string_to_sign(scope, canonical)
    return canonical, text, signing.signature(keys.secret_key, scope, text)


# The published vectors, where they lie beside this checkout.

# Normalising is what S3 must not do, and no request of ours has two headers of one name or a line break in one.
NOT_OURS = ("-normalized", "header-value-multiline", "header-key-duplicate", "header-value-order")


def vectors():
    """The names of the cases that concern S3; none where the data are not here."""
    names = [path.name for path in sorted(VECTORS.glob("*"))]
    return [name for name in names if name != "README.md" and not name.endswith(NOT_OURS)]


@wants_shared("sigv4")
@pytest.mark.parametrize("name", vectors())
def test_a_published_vector_is_signed_as_it_should_be(name):
    folder = VECTORS / name
    context = json.loads((folder / "context.json").read_text(encoding="utf-8"))
    head, _, body = (folder / "request.txt").read_text(encoding="utf-8").partition("\n\n")
    first, *lines = head.split("\n")
    method, target = first.rsplit(" ", 1)[0].split(" ", 1)
    path, _, query = target.partition("?")
    headers = dict(line.split(":", 1) for line in lines if line)
    headers["X-Amz-Date"] = SUITE_SCOPE.moment
    keys = SUITE_KEYS._replace(token=context["credentials"].get("token"))
    if context["sign_body"]:
        headers["x-amz-content-sha256"] = signing.sha256_hex(body.encode())
    if keys.token and not context.get("omit_session_token"):
        headers["X-Amz-Security-Token"] = keys.token
    pairs = [(unquote(name), unquote(value)) for name, _, value in (each.partition("=") for each in query.split("&"))]
    found = signed(
        method, signing.encoded(unquote(path), "/"), query_string(pairs if query else ()), headers, body.encode()
    )
    files = ("header-canonical-request.txt", "header-string-to-sign.txt", "header-signature.txt")
    assert list(found) == [(folder / file).read_text(encoding="utf-8").rstrip("\n") for file in files]


# The same in cases of our own.


def test_the_plainest_vector():
    headers = {"Host": "example.amazonaws.com", "X-Amz-Date": "20150830T123600Z"}
    canonical, text, signature = signed("GET", "/", "", headers)
    assert canonical == (
        "GET\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n" + EMPTY
    )
    assert text == (
        "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/service/aws4_request\n"
        "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"
    )
    assert signature == "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


def test_the_example_of_the_s3_page():
    headers = {"Host": "examplebucket.s3.amazonaws.com", "Range": "bytes=0-9"}
    whole = signed_headers("GET", "/test.txt", "", headers, EMPTY, EXAMPLE_KEYS, EXAMPLE_SCOPE)
    assert whole["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert whole["x-amz-content-sha256"] == EMPTY


def test_a_session_token_is_sent_and_signed():
    whole = signed_headers("GET", "/", "", {"Host": "h"}, EMPTY, EXAMPLE_KEYS._replace(token="to/ken"), EXAMPLE_SCOPE)
    assert whole["x-amz-security-token"] == "to/ken"
    assert "x-amz-date;x-amz-security-token," in whole["Authorization"]


@pytest.mark.parametrize(("key", "path"), [
    ("a b+c", "/a%20b%2Bc"), ("a//b", "/a//b"), ("a/../b/./c", "/a/../b/./c"), ("100%", "/100%25"), ("%41", "/%2541"),
    ("é~-._", "/%C3%A9~-._"), ("a=b&c?d#e", "/a%3Db%26c%3Fd%23e"), ("/x", "//x"), ("x/", "/x/"),
    ("$$'\"", "/%24%24%27%22"),
])  # fmt: skip
def test_a_key_is_encoded_once_and_never_normalised(key, path):
    account = make_account("https://s3.us-east-1.amazonaws.com", "bucket", EXAMPLE_KEYS)
    assert account.place(key).path == path


def test_a_query_is_sorted_by_its_encoded_names_and_keeps_empty_values():
    pairs = [("uploads", ""), ("b", "2 3"), ("b", "1+/"), ("é", "~"), ("B", "")]
    assert query_string(pairs) == "%C3%A9=~&B=&b=1%2B%2F&b=2%203&uploads="


def test_blanks_in_a_header_are_one_in_its_signature():
    headers = {"My-Header2": '  "a   b   c" ', "my-header1": "  a \t b "}
    assert canonical_request("GET", "/", "", headers, EMPTY).split("\n")[3:5] == [
        "my-header1:a b",
        'my-header2:"a b c"',
    ]


# botocore as an oracle.

names = st.text(st.sampled_from("ab+ /%.~é\U0001f418=&?#$'\"\\|{}[]()*!@:;,<>^`\t"), min_size=1, max_size=40)
fields = st.text(st.sampled_from("abcXYZ019 +/=%"), max_size=20)


@settings(max_examples=300, deadline=None)
@given(
    key=names,
    pairs=st.lists(st.tuples(fields.filter(bool), fields), max_size=4, unique_by=lambda pair: pair[0]),
    meta=fields,
    body=st.binary(max_size=50),
    token=st.sampled_from([None, "to/ken+="]),
    is_path_style=st.booleans(),
    endpoint=st.sampled_from(
        ["https://s3.eu-west-1.amazonaws.com", "http://localhost:9000", "https://h:443", "http://h:80"]
    ),
)
def test_we_sign_what_botocore_signs(key, pairs, meta, body, token, is_path_style, endpoint):
    keys = EXAMPLE_KEYS._replace(token=token)
    place = make_account(endpoint, "my-bucket", keys, is_path_style=is_path_style).place(key)
    query = query_string(pairs)
    headers = {"Host": place.host, "x-amz-meta-a": meta, "Range": "bytes=0-9", "Content-Type": "text/plain"}
    ours = signed_headers("PUT", place.path, query, headers, signing.sha256_hex(body), keys, EXAMPLE_SCOPE)

    theirs = AWSRequest("PUT", f"{place.scheme}://{place.host}{place.path}" + (f"?{query}" if query else ""), data=body)
    for name in ("Host", "x-amz-meta-a", "Range", "Content-Type"):
        theirs.headers[name] = headers[name]
    theirs.context["timestamp"] = EXAMPLE_SCOPE.moment
    theirs.context["client_config"] = None
    oracle = S3SigV4Auth(Credentials(keys.access_key, keys.secret_key, token), "s3", "us-east-1")
    theirs.headers["X-Amz-Date"] = EXAMPLE_SCOPE.moment
    theirs.headers["X-Amz-Content-SHA256"] = signing.sha256_hex(body)
    if token:
        theirs.headers["X-Amz-Security-Token"] = token
    canonical = oracle.canonical_request(theirs)
    expected = oracle.signature(oracle.string_to_sign(theirs, canonical), theirs)
    assert ours["Authorization"].endswith(f"Signature={expected}"), canonical


def test_importing_it_loads_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, nself_core.s3.multipart, nself_core.s3.download, nself_core.s3.account\n"
        "heavy = {'urllib.request', 'ssl', 'http.client', 'email', 'logging', 'hashlib', 'xml.etree.ElementTree'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    assert done.stdout == "[]\n"
