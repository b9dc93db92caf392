"""What a backup is called, and what its name says: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nself_core.backups.names import ENDINGS, FORMATS, LABEL, check_label, ending_of, file_name, read_name
from nself_core.failures import UsageFailure

SECONDS = st.integers(0, 253402300799)  # to the year 9999


@given(SECONDS, st.none() | st.from_regex(LABEL, fullmatch=True), st.sampled_from(sorted(ENDINGS)))
def test_a_name_says_what_it_was_made_of(seconds, label, ending):
    check_label(label)
    name = read_name(file_name(seconds, label, ending))
    assert name is not None
    assert (name.seconds, name.label) == (seconds, label)
    assert name.format == ENDINGS[ending]


@given(st.text())
def test_only_a_label_that_is_let_through_is_read_again(text):
    try:
        check_label(text)
    except UsageFailure:
        assert read_name(file_name(0, text, ".dump")) is None or not text
    else:
        assert read_name(file_name(0, text, ".dump")).label == text


@given(SECONDS, SECONDS)
def test_names_sort_as_their_times_do(one, other):
    assert (one < other) == (file_name(one, None, ".dump") < file_name(other, None, ".dump"))


@pytest.mark.parametrize("file", [
    "2024-05-01T12:00:00.dump.json", ".2024-05-01T12:00:00.dump.part", "2024-05-01T12:00:00_.dump", "x.dump",
    "2024-02-30T12:00:00.dump", "2024-05-01T25:00:00.dump", "2024-05-01T12:00:00.dump\n", "2024-05-01 12:00:00.dump",
    "2024-05-01T12:00:00_a b.dump", "2024-05-01T12:00:00.gz", "2024-05-01T12:00:00label.dump",
    "\u0662\u0660\u0662\u0664-05-01T12:00:00.dump", "",
])  # fmt: skip
def test_what_is_no_backups_name(file):
    assert read_name(file) is None


@pytest.mark.parametrize(("form", "compressed", "ending"), [
    ("custom", True, ".dump"), ("custom", False, ".dump"), ("directory", True, ".dir"), ("plain", False, ".sql"),
    ("plain", True, ".sql.gz"),
])  # fmt: skip
def test_endings(form, compressed, ending):
    assert ending_of(form, compressed) == ending
    assert {*ENDINGS.values()} == {*FORMATS}
