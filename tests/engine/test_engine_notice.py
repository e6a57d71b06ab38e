"""Notices at the end: what they say, and that nothing about them can make a run fail."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from records_fixture import write

from codestage.analyse.run import analyse
from codestage.engine.notice import noticed
from codestage.errors import RunError, UserError


class Heard(BaseHTTPRequestHandler):
    """Keeps what is posted; answers as its server was told to."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.answer)
        if self.server.answer == 302:
            self.send_header("Location", self.server.elsewhere)
        self.end_headers()

    def do_GET(self):
        self.server.heard.append((self.path, None, None))

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = HTTPServer(("127.0.0.1", 0), Heard)
    made.heard, made.answer = [], 200
    made.address = f"http://127.0.0.1:{made.server_port}/hook/secret"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def records(tmp_path):
    """A folder with the records and effects of an invented study."""
    write(tmp_path, items=60, pretrain=0.15)
    effects = json.dumps(analyse(tmp_path), allow_nan=False)
    (tmp_path / "results" / "effects.json").write_text(effects)
    return tmp_path


def told(folder, state, seconds=12.34):
    (folder / "work").mkdir(exist_ok=True)
    status = {"study": "mine", "state": state, "seconds": seconds}
    (folder / "work" / "status.json").write_text(json.dumps(status))


def failing(to, folder, state, message):
    with noticed(to, folder, lambda text: None):
        told(folder, state)
        raise RunError(message)


def test_a_run_that_is_done_tells_the_first_finding(server, records):
    complaints = []
    with noticed(server.address, records, complaints.append):
        told(records, "done")
    ((path, kind, body),) = server.heard
    assert (path, kind) == ("/hook/secret", "application/json")
    assert {k: body[k] for k in ("study", "state", "seconds")} == {
        "study": "mine", "state": "done", "seconds": 12.34,
    }  # fmt: skip
    assert body["headline"].startswith("Code at ")
    assert complaints == []


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_run_that_failed_tells_why_and_still_fails(server, tmp_path, state):
    with pytest.raises(RunError, match="no room"):
        failing(server.address, tmp_path, state, "no room\nsecond line")
    ((_, _, body),) = server.heard
    assert body == {"study": "mine", "state": state, "seconds": 12.34, "headline": "no room"}


def test_what_was_refused_before_it_began_tells_nothing(server, tmp_path):
    told(tmp_path, "done")
    status = tmp_path / "work" / "status.json"
    os.utime(status, (1, 1))  # of an earlier run
    with pytest.raises(UserError), noticed(server.address, tmp_path, lambda text: None):
        raise UserError("a mistake")
    assert server.heard == []


@pytest.mark.parametrize("answer", [404, 500, 302])
def test_a_notice_that_fails_is_a_warning_without_the_secret_in_the_address(server, tmp_path, answer):
    server.answer, server.elsewhere = answer, server.address
    complaints = []
    with noticed(server.address, tmp_path, complaints.append):
        told(tmp_path, "done")
    assert len(server.heard) <= 1  # not sent on to where the answer points
    (complaint,) = complaints
    assert "was not sent" in complaint
    assert "secret" not in complaint


def test_nobody_there_is_a_warning(server, tmp_path):
    complaints = []
    server.shutdown()
    server.server_close()
    with noticed(server.address, tmp_path, complaints.append):
        told(tmp_path, "done")
    assert "was not sent" in complaints[0]


@pytest.mark.parametrize(
    "to", ["desk", "ftp://x/y", "http://", "file:///etc/passwd", "http://[", "", "http://me:word@host/x"]
)
def test_addresses_that_are_none_are_refused_before_anything_runs(tmp_path, to):
    ran = []
    with pytest.raises(UserError, match="--notify"), noticed(to, tmp_path, ran.append):
        ran.append("ran")
    assert ran == []


def test_the_desktop_is_told_by_notify_send(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "notify-send"
    fake.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > {tmp_path}/said\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(RunError):
        failing("desktop", tmp_path, "failed", "--no room")
    said = (tmp_path / "said").read_text()
    assert said.split("|")[:3] == ["--app-name=codestage", "--", "mine: failed"]
    assert "--no room\n12 s" in said
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="no notify-send"), noticed("desktop", tmp_path, print):
        pass


def test_only_the_first_of_torchruns_processes_tells(server, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with noticed(server.address, tmp_path, lambda text: None):
        told(tmp_path, "done")
    assert server.heard == []
