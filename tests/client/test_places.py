from __future__ import annotations

import os

import pytest

from client.errors import Exit, ServerError
from client.places import FormatWords, Places, Problems, check_places, read_format
from client.words import Csv, Fixed, Location


def never():
    pytest.fail("nobody had to ask for the planes")


def test_paths_become_absolute_and_symlinks_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.csv").symlink_to("/etc/hosts")
    places = Places(never)
    for word in ("link.csv", "./link.csv", str(tmp_path / "link.csv"), "x/../link.csv"):
        assert places.find(word) == Location("local", str(tmp_path / "link.csv"))
    assert places.find("./in:part*.csv") == Location("local", str(tmp_path / "in:part*.csv"))


def test_a_plane_is_one_that_the_server_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cloud:a.csv").touch()
    asked = []
    places = Places(lambda: asked.append(1) or ["data", "cloud"])
    assert places.find("cloud:in/*.csv") == Location("cloud", "in/*.csv")
    assert places.find("cloud:a.csv") == Location("cloud", "a.csv")  # the plane, though such a file exists
    assert asked == [1]


def test_a_path_with_a_colon_is_a_path_where_there_is_no_such_plane(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2013:flights.csv").touch()
    (tmp_path / "a:b").mkdir()
    places = Places(lambda: ["data"])
    assert places.find("2013:flights.csv").plane == "local"
    assert places.find("a:b/new.csv").key == str(tmp_path / "a:b" / "new.csv")


def test_no_such_plane_lists_the_planes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServerError, match=r"'nope' \(there are: data, cloud\)") as caught:
        Places(lambda: ["data", "cloud"]).find("nope:x")
    assert caught.value.exit is Exit.NOT_FOUND
    assert caught.value.reason == "PLANE_NOT_FOUND"


def test_logical_names_and_empty_words_are_no_places():
    problems = Problems()
    check_places("SOURCE", ["a::b", "", "fine.csv"], problems, "say -")
    check_places("TARGET", ["hdf5://home/x"], problems, "say -")
    with pytest.raises(ServerError) as caught:
        problems.check()
    assert caught.value.violations["SOURCE"].count(";") == 1
    assert "`cropduster hdf5 get` makes a file" in caught.value.violations["TARGET"]


def found(names, **typed):
    problems = Problems()
    chosen = read_format(FormatWords(typed.pop("format", None), **typed), names, problems)
    problems.check()
    return chosen


def test_formats_and_their_options():
    assert found(["a.csv"]) == Csv()
    assert found(["a.tsv"]) == Csv(separators=(b"\t",))
    assert found(["a.tsv"], separator="|") == Csv(separators=(b"|",))
    assert found(["a.csv"], format="fixed:7") == Fixed(7)
    assert found(["a"]) is None
    assert found(["a"], format="csv", quote="", escape="\\") == Csv(quotes=None, escapes=(b"\\",))
    assert found(["a"], format="csv", quote="'", terminator=r"\r\n", max_record="1MiB", split="exact") == Csv(
        quotes=(b"'",), terminators=(b"\r\n",), max_record=1 << 20, split="exact"
    )


@pytest.mark.parametrize(
    ("typed", "fields"),
    [
        ({"format": "csv", "separator": "", "terminator": ""}, {"--separator", "--terminator"}),
        (
            {"format": "csv", "max_record": "x", "split": "best", "escape": "\\q"},
            {"--max-record", "--split", "--escape"},
        ),
        ({"format": "fixed:3", "quote": "'", "split": "exact"}, {"--quote", "--split"}),
        ({"separator": "|"}, {"--separator"}),
        ({"format": "json"}, {"--format"}),
    ],
)
def test_all_that_is_wrong_with_a_format_is_said_at_once(typed, fields):
    with pytest.raises(ServerError) as caught:
        found(["a"], **typed)
    assert set(caught.value.violations) == fields
    assert caught.value.exit is Exit.BAD_REQUEST


@pytest.mark.parametrize(
    "word", ["/dev/stdin", "/dev//fd/63", "/proc/self/fd/1", "/dev/../dev/stdout", "/proc/thread-self/fd/0"]
)
def test_open_files_of_this_process_are_no_places(word):
    problems = Problems()
    check_places("SOURCE", [word], problems, "write -")
    with pytest.raises(ServerError, match=r"the server does not share: write -"):
        problems.check()


def test_a_folder_whose_name_is_no_text_is_told(tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(b"odd\xff")
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ServerError, match="not valid UTF-8"):
        Places(list).find("x.csv")
