"""The viewer's server: who may see it."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest
from viewer_fixture import TOKEN, browser, viewed

from codestage.engine.progress import status as read_status
from codestage.errors import UserError
from codestage.report.viewer.app import make_app
from codestage.report.viewer.serve import serve


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return viewed(tmp_path_factory.mktemp("one") / "study")


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/style.css", "/report/0/", "/api/studies", "/api/item", "/nothing"]
)
def test_nothing_is_shown_without_the_token(study, path):
    client = browser(study, opened=False)
    for query in ("", "?token=", "?token=wrong", f"?token={TOKEN[:-1]}"):
        answer = client.get(path + query, follow_redirects=False)
        assert answer.status_code == 403
        assert "invented" not in answer.text
        assert "set-cookie" not in answer.headers
    assert "codestage view" in client.get(path).text  # says where the link is


def test_the_token_goes_into_a_cookie_that_scripts_and_other_sites_cannot_use(study):
    client = browser(study, opened=False)
    answer = client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "domain" not in cookie
    assert client.get("/api/studies").status_code == 200
    # a token in another place's address opens nothing
    assert browser(study, opened=False).get(f"/api/studies?token={TOKEN}").status_code == 403


def test_a_ticket_opens_the_page_once(study):
    tickets = {"ticket"}
    first, second = (browser(study, once=tickets, opened=False) for _ in range(2))
    assert first.get("/?token=ticket").status_code == 200
    assert first.get("/api/studies").status_code == 200
    assert second.get("/?token=ticket").status_code == 403
    assert not tickets


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1:8123", 200), ("localhost:9", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403),
     ("localhost.evil.example:8123", 403), ("", 403), ("192.168.0.7:8123", 403)],
)  # fmt: skip
def test_a_name_that_leads_here_from_elsewhere_is_refused(study, host, code):
    client = browser(study)
    cookie = "; ".join(f"{k}={v}" for k, v in client.cookies.items())
    assert client.get("/api/studies", headers={"host": host, "cookie": cookie}).status_code == code


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_only_get_is_answered(study, method):
    assert browser(study).request(method, "/api/studies").status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/../app.py", "/./app.py", "/static/../app.py", "/../../cli.py", "//etc/passwd", "/etc/passwd", "/app.js/..",
     "/report/../../../etc/passwd", "/report/", "/__init__.py", "/guard.py", "/app.js\0.html", "/..\\app.py", ""],
)  # fmt: skip
def test_no_address_leads_out_of_the_page(study, path):
    """Asked past any client, which would tidy the path before it sends it."""
    client = browser(study)
    cookie = "; ".join(f"{k}={v}" for k, v in client.cookies.items())
    said = []

    async def send(message):
        said.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    headers = [(b"host", b"localhost"), (b"cookie", cookie.encode())]
    scope = {"type": "http", "method": "GET", "query_string": b"", "headers": headers, "root_path": ""}
    asyncio.run(client.app(scope | {"path": path, "raw_path": path.encode()}, receive, send))
    assert said[0]["status"] == 404
    body = b"".join(part.get("body", b"") for part in said[1:])
    assert json.loads(body).keys() == {"error"}


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/api/studies", "/api/nothing", "/api/item", "/report/0/", "/?token=x"]
)
def test_every_answer_forbids_what_the_page_does_not_need(study, path):
    headers = browser(study).get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy or (path == "/report/0/" and "script-src" not in policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_the_page_names_nothing_outside_itself():
    static = Path(make_app.__code__.co_filename).parent / "static"
    for path in static.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not [word for word in ("http:", "https:", "url(", "@import", "//cdn") if word in text], (
            path
        )
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "new Function"):
            assert word not in text, (path, word)


@pytest.fixture
def command(study):
    """`codestage view` as it was started: its process and its link."""
    line = [sys.executable, "-m", "codestage.cli", "view", str(study), "--no-browser"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate(timeout=20)


def test_the_command_answers_on_this_machine_only_and_ends_on_ctrl_c(command):
    process, address = command
    host, _, token = address.removeprefix("http://").partition("/?token=")
    port = int(host.split(":")[1])
    assert host.startswith("127.0.0.1:")
    assert len(token) >= 32
    with httpx2.Client(follow_redirects=True, trust_env=False) as client:
        assert client.get(f"http://{host}/").status_code == 403
        assert client.get(address).status_code == 200
        assert client.get(f"http://{host}/api/studies").json()["studies"][0]["name"] == "invented"
        assert "server" not in client.get(f"http://{host}/").headers
    for elsewhere in _addresses():
        with socket.socket() as knock:
            assert knock.connect_ex((elsewhere, port)) != 0, elsewhere
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "Traceback" not in out


def _addresses():
    """Where else this machine could be reached: its own addresses, and the rest of the loopback network."""
    found = [a.address for given in psutil.net_if_addrs().values() for a in given]
    return ["127.0.0.2", *(a for a in found if a.count(".") == 3 and not a.startswith("127."))]


def test_what_cannot_be_served_is_said(study, tmp_path):
    def never(*_):
        raise AssertionError("nothing is served")

    with pytest.raises(UserError, match="no such folder"):
        serve([tmp_path / "none"], read_status, port=0, ready=never)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be had"):
            serve([study], read_status, port=taken.getsockname()[1], ready=never)


@pytest.mark.parametrize("other", ['prefs={"open":true}', "name=two words", "path=/x", "a(b=1"])
def test_cookies_of_other_programs_do_not_lock_the_page(study, other):
    """Cookies know no ports: those of any program on this machine come along."""
    client = browser(study)
    own = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    answer = client.get("/api/studies", headers={"cookie": f"{other}; {own}"})
    assert answer.status_code == 200


def test_a_table_too_long_for_the_page_is_a_file_beside_it(study):
    tables = study / "results" / "tables"
    tables.mkdir(exist_ok=True)
    (tables / "long.csv").write_text("a,b\n1,2\n")
    client = browser(study)
    answer = client.get("/report/0/tables/long.csv")
    assert (answer.status_code, answer.text) == (200, "a,b\n1,2\n")
    for path in ("/report/0/tables/other.csv", "/report/0/tables/..%2Fstudy.json", "/report/0/tables/"):
        assert client.get(path).status_code == 404
    assert client.get("/report/7/tables/long.csv").status_code == 404
