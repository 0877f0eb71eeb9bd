"""The log: one line an event, from our code and from libraries, and no secret in any of them."""

import json
import logging

import pytest
import structlog

from fileserver import log
from fileserver.errors import InvalidSpec


@pytest.fixture(autouse=True)
def _quiet_afterwards():
    root = logging.getLogger()
    level = root.level
    yield
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("GET https://s3.example/b/k?X-Amz-Signature=hunter2&x=1 failed", "hunter2"),
        ("https://user:hunter2@s3.example/b", "hunter2"),
        ("Authorization: Bearer hunter2", "hunter2"),
        ("authorization: AWS4-HMAC-SHA256 hunter2/20260101", "hunter2"),
        ("secret_key=hunter2, region=x", "hunter2"),
        ("{'aws_secret_access_key': 'hunter2', 'a': 1}", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("cropduster-cookie: hunter2", "hunter2"),
        ("it said eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.hunter2-hunter_2", "hunter2"),
    ],
)
def test_what_looks_like_a_secret_is_struck(text, secret):
    struck = log.strike(text)
    assert secret not in struck
    assert log.STRUCK in struck


@pytest.mark.parametrize(
    "text",
    [
        "part 3 of people::all has 10 bytes",
        "s3://bucket/prefix/key at https://s3.example/path",
        "posix:/srv/data?x.csv is a file name",
        "what? nothing",
        "",
    ],
)
def test_what_is_no_secret_stays(text):
    assert log.strike(text) == text


def lines(capfd):
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_events_become_json_without_secrets_at_any_depth(capfd):
    log.configure()
    structlog.stdlib.get_logger("x").info(
        "opened",
        plane="cloud",
        size=5,
        secret_key="hunter2",
        options={"session_token": "hunter2", "urls": ["https://a/b?sig=hunter2"], "path": "/x"},
    )
    (line,) = lines(capfd)
    assert (line["event"], line["plane"], line["size"], line["level"]) == ("opened", "cloud", 5, "info")
    assert line["options"]["path"] == "/x"
    assert "hunter2" not in json.dumps(line)


def test_a_traceback_is_one_line_without_locals_and_secrets(capfd):
    log.configure()

    secret = "hun" + "ter2"
    message = f"https://a/b?sig={secret}"
    try:
        json.loads(message)
    except ValueError:
        structlog.stdlib.get_logger("x").exception(f"bug with {message}", id="1")
    (line,) = lines(capfd)
    assert "JSONDecodeError" in line["exception"]
    assert secret not in json.dumps(line)


def test_libraries_take_the_same_way(capfd):
    log.configure("warning")
    logging.getLogger("botocore").warning("retrying %s", "https://a/b?X-Amz-Signature=hunter2")
    logging.getLogger("botocore").info("not told")
    (line,) = lines(capfd)
    assert line["event"] == "retrying https://a/b?[struck]"
    assert line["logger"] == "botocore"


def test_a_file_and_lines_for_people(tmp_path, capfd):
    path = tmp_path / "server.log"
    log.configure("info", "console", path)
    structlog.stdlib.get_logger("x").info("serving", address="unix:/x")
    text = path.read_text()
    assert "serving" in text
    assert "address=unix:/x" in text
    assert "\x1b" not in text
    assert capfd.readouterr().err == ""


def test_configuring_twice_tells_once(capfd):
    log.configure()
    log.configure()
    structlog.stdlib.get_logger("x").info("once")
    assert len(lines(capfd)) == 1


@pytest.mark.parametrize("trap", ["missing folder", "a folder itself"])
def test_a_file_that_cannot_be_written_is_told_by_its_key(trap, tmp_path):
    path = tmp_path if trap == "a folder itself" else tmp_path / "none" / "x.log"
    with pytest.raises(InvalidSpec, match=rf"log\.file: {path} cannot be written") as caught:
        log.configure(file=path)
    assert set(caught.value.violations) == {"log.file"}
