"""A file's bytes, text and checksum."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.failures import FileFailure
from nself_core.sql import source


def write_bytes(tmp_path, data):
    path = tmp_path / "1_a.sql"
    path.write_bytes(data)
    return str(path)


def test_checksum_is_sha256_of_the_text(tmp_path):
    assert source.checksum("SELECT 'é';\n") == hashlib.sha256("SELECT 'é';\n".encode()).hexdigest()


lines = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\ufeff"), max_size=20))


@settings(deadline=None)
@given(parts=lines, line_end=st.sampled_from(["\n", "\r\n", "\r"]), bom=st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_checksum_is_the_same_for_every_line_end_and_with_a_bom(tmp_path_factory, parts, line_end, bom):
    path = write_bytes(tmp_path_factory.mktemp("text"), bom + line_end.join(parts).encode())
    expected = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    assert source.checksum_of_file(path, "1_a.sql") == expected
    assert source.checksum(source.read_text(path, "1_a.sql")) == expected


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_both_checksums_agree_on_any_text(tmp_path_factory, text):
    path = write_bytes(tmp_path_factory.mktemp("text"), text.encode())
    assert source.checksum_of_file(path, "1_a.sql") == source.checksum(source.read_text(path, "1_a.sql"))


def test_checksum_sees_a_changed_space():
    assert source.checksum("SELECT 1;") != source.checksum("SELECT  1;")


@pytest.mark.parametrize("data", [b"SELECT '\0';", b"SELECT '\xe9';", "SELECT 1;".encode("utf-16")])
def test_text_that_is_not_utf8_is_refused(tmp_path, data):
    with pytest.raises(FileFailure) as caught:
        source.read_text(write_bytes(tmp_path, data), "migrations/1_a.sql")
    assert caught.value.file == "migrations/1_a.sql"


def test_a_file_that_has_gone_is_a_failure_with_its_name(tmp_path):
    with pytest.raises(FileFailure, match="No such file") as caught:
        source.checksum_of_file(str(tmp_path / "gone"), "migrations/1_a.sql")
    assert caught.value.file == "migrations/1_a.sql"
