"""The viewer and the report in a real browser: quiet, offline, usable by keyboard and screen reader.

Debian's Chromium, driven by Playwright. Every page watches itself: no message on the console, no failed
request, nothing asked of any other host.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.resources import files
from urllib.parse import urlsplit

import pytest
from viewer_fixture import HOSTILE, status_of, viewed

from codestage.engine.progress import only_one

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install '.[test]'"
)
expect = sync_api.expect
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = [
    pytest.param(DESKTOP, "light", id="desktop-light"),
    pytest.param(PHONE, "dark", id="phone-dark", marks=pytest.mark.slow),
    pytest.param(DESKTOP, "dark", id="desktop-dark", marks=pytest.mark.slow),
    pytest.param(PHONE, "light", id="phone-light", marks=pytest.mark.slow),
]
ITEM = "#view=compare&dir=all&of=coins&item=coins-4"
VIEWS = {
    "study": "",
    "filtered": "#view=study&metric=prob&level=task&find=coins",
    "compare": "#view=compare",
    "seed": "#view=compare&seed=1&dir=lost&task=lists",
    "graded": "#view=compare&metric=prob",
    "item": ITEM,
    "written": ITEM + "&cot=generated",
    "studies": "#view=compare&study=0&b=1",
    "wrong": "#view=study&metric=none",
    "running": "#view=study&study=2",
}


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe():
    return (files("axe_playwright_python") / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A finished study, another one, one that has just begun."""
    place = tmp_path_factory.mktemp("studies")
    early = place / "early"
    (early / "work").mkdir(parents=True)
    (early / "work" / "status.json").write_text(json.dumps(status_of()))
    with only_one(early):
        yield [viewed(place / "one", items=60), viewed(place / "two", rng_seed=4, effects=False), early]


class Served:
    """`codestage view` as a person starts it."""

    def __init__(self, *folders):
        command = [sys.executable, "-m", "codestage.cli", "view", *map(str, folders)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.link = self.process.stdout.readline().strip()
        self.page = self.link.partition("?")[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0


@pytest.fixture(scope="module")
def served(folders):
    with Served(*folders) as served:
        yield served


class Watched:
    """A page of its own, and everything it did that a page should not do."""

    def __init__(self, chromium, size=DESKTOP, scheme="light"):
        self.context = chromium.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.wrong, self.hosts = [], set()
        self.page.on("console", lambda m: self.wrong.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.wrong.append(f"error: {e}"))
        self.page.on("requestfailed", self.failed)
        self.page.on(
            "request", lambda r: self.hosts.add((urlsplit(r.url).scheme, urlsplit(r.url).hostname))
        )
        self.page.set_default_timeout(10_000)

    def failed(self, request):
        if "ERR_ABORTED" not in request.failure:  # the browser's own: the page was left before it came
            self.wrong.append(f"failed: {request.url} {request.failure}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            assert self.wrong == []
            assert self.hosts <= {("http", "127.0.0.1"), ("file", None), ("file", ""), ("data", None)}

    def open(self, served, hash_=""):
        self.page.goto(served.link)
        if hash_:
            self.page.goto(served.page + hash_)
        self.settled()
        return self.page

    def settled(self):
        """Wait until the page shows what its address says."""
        self.page.wait_for_function(
            "() => { const m = document.getElementById('main');"
            " return m && m.dataset.shown === location.hash && !m.hasAttribute('aria-busy'); }"
        )


def violations(page, axe):
    """What axe-core objects to, minor things too, with the elements."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [(v["id"], v["impact"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found]


def sideways(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_every_view_is_quiet_fits_and_is_accessible(chromium, served, axe, size, scheme):
    with Watched(chromium, size, scheme) as watched:
        page = watched.open(served)
        for name, hash_ in VIEWS.items():
            page.goto(served.page + (hash_ or "#"))
            watched.settled()
            if name == "wrong":  # the browser itself notes the status 400
                expect(page.get_by_role("alert")).to_contain_text("no effects with metric 'none'")
                assert all("400" in message for message in watched.wrong)
                watched.wrong.clear()
            if name in ("item", "written"):
                expect(page.locator("#item-title")).to_be_focused()
                page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
            assert violations(page, axe) == [], name
            assert sideways(page) <= 0, name


def test_without_the_token_there_is_a_page_in_words(chromium, served, axe):
    with Watched(chromium) as watched:
        watched.page.goto(served.page)
        expect(watched.page.locator("h1")).to_have_text("This page needs its link")
        assert violations(watched.page, axe) == []
        watched.wrong.clear()  # the browser notes the status 403


def test_the_study_shows_what_it_found(chromium, served, folders):
    effects = json.loads((folders[0] / "results" / "effects.json").read_text())["effects"]
    here = [e for e in effects if (e["stage"], e["cot"], e["metric"]) == ("tune", "off", "acc")]
    with Watched(chromium) as watched:
        page = watched.open(served)
        assert watched.hosts == {("http", "127.0.0.1")}
        assert page.title() == "Study: invented · codestage"
        first = next(e for e in here if e["level"] == "overall" and e["contrast"] == "code@pretrain")
        row = page.locator("table.forest tbody tr", has_text="code at pretrain").first
        expect(row).to_contain_text(f"{first['estimate']:+.1f}".replace("-", "−"))
        dots = page.locator("table.forest .dot")
        assert dots.count() == sum(e["level"] == "overall" for e in here)
        rows = page.locator("table.effects tbody tr")
        page.get_by_label("tasks", exact=True).check(force=True)
        page.get_by_label("Domain or task contains").fill("sums")
        expect(rows).to_have_count(sum(e["level"] == "task" and e["name"] == "sums" for e in here))
        for direction in ("ascending", "descending"):
            page.get_by_role("button", name="Estimate").click()
            expect(page.locator("th[aria-sort]", has_text="Estimate")).to_have_attribute(
                "aria-sort", direction
            )
            shown = [
                float(t.replace("−", "-"))
                for t in page.locator("table.effects td:nth-child(3)").all_inner_texts()
            ]
            assert shown == sorted(shown, reverse=direction == "descending")
        assert "level=task" in page.url
        assert "find=sums" in page.url
        rows.filter(has_text="code at pretrain").first.get_by_role("link").click()
        expect(page.locator("#sum-title")).to_contain_text("text+code/text against")
        expect(page.locator("#items-title")).to_contain_text("Items of sums")


def test_what_filters_the_effects_leaves_the_page_in_place(chromium, served):
    """Were it drawn anew when a field is left, a slow press of a button in it would be lost."""
    with Watched(chromium) as watched:
        page = watched.open(served)
        page.get_by_label("Domain or task contains").fill("sums")
        head = page.get_by_role("button", name="Estimate")
        head.hover()
        page.mouse.down()  # the field is left here
        page.wait_for_timeout(500)
        page.mouse.up()
        expect(page.locator("th[aria-sort]", has_text="Estimate")).to_have_attribute(
            "aria-sort", "ascending"
        )
        page.reload()
        expect(page.get_by_label("Domain or task contains")).to_have_value("sums")


def test_an_item_is_reached_with_the_keyboard_alone(chromium, served):
    with Watched(chromium) as watched:
        page = watched.open(served)

        def focus(test, key="Tab", most=80):
            for _ in range(most):
                page.keyboard.press(key)
                if page.evaluate(f"(() => {{ const e = document.activeElement; return {test}; }})()"):
                    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                    assert ring != "none"
                    return
            raise AssertionError(f"{test} was not reached")

        focus("e.id === 'skip'", most=1)
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        assert page.url.endswith("/")
        focus("e.id === 'view-compare'", key="Shift+Tab")
        page.keyboard.press("Enter")
        watched.settled()
        focus("e.matches('a.item')")
        first = page.evaluate("document.activeElement.id")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        second = page.evaluate("document.activeElement.id")
        links = page.locator("a.item")
        assert [first, second] == [links.nth(i).get_attribute("id") for i in (0, 1)]
        name = links.nth(1).inner_text()
        page.keyboard.press("Enter")
        expect(page.locator("#item-title")).to_be_focused()
        expect(page.locator("#item-title")).to_contain_text(name)
        expect(page.locator("a.item[aria-current]")).to_have_text(name)
        focus("e.id === 'item-next'")
        page.keyboard.press("Enter")
        expect(page.locator("#item-title")).to_contain_text(links.nth(2).inner_text())
        page.keyboard.press("Escape")
        expect(links.nth(2)).to_be_focused()
        expect(page.locator("#item-title")).to_have_count(0)
        # choosing with the keyboard leaves the focus where it was
        page.locator("#cmp-seed").focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator("#told")).to_contain_text("McNemar")
        expect(page.locator("#cmp-seed")).to_be_focused()
        page.locator("#dir-changed").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#dir-gained")).to_be_focused()
        expect(page.locator("#dir-gained")).to_be_checked()


def test_an_item_shows_both_sides(chromium, served):
    with Watched(chromium) as watched:
        page = watched.open(served, ITEM + "&cot=generated&seed=0")
        detail = page.locator("#detail")
        expect(detail.locator(".prompt")).to_contain_text("Which is 4?")
        expect(detail.locator(".tag.gold")).to_have_text("✓right")
        left, right = detail.locator(".output.a"), detail.locator(".output.b")
        expect(left.locator(".text")).to_contain_text("First text/text and then")
        expect(right.locator(".text")).to_contain_text("First text+code/text and then")
        page.goto(served.page + "#view=compare&dir=gained&cot=generated&seed=0")
        watched.settled()
        page.locator("a.item").first.click()
        watched.settled()
        # what only one side has is marked, what both have is not
        gold = (
            detail.locator(".options li", has_text="right").inner_text().removesuffix("✓right").strip()
        )
        assert right.locator("mark").all_inner_texts() == ["+code", gold]
        assert len(left.locator("mark").all_inner_texts()) == 1
        page.goto(served.page + ITEM)
        watched.settled()
        expect(detail.locator(".choices").first.locator("tbody tr")).to_have_count(3)
        shares = (
            detail.locator(".choices").first.locator("tbody td:nth-child(2) .nowrap").all_inner_texts()
        )
        assert sum(float(text.split(" %")[0]) for text in shares) == pytest.approx(100, abs=0.2)
        expect(detail.locator("details.seed")).to_have_count(3)


def test_a_view_can_be_linked_and_gone_back_to(chromium, served):
    with Watched(chromium) as watched:
        page = watched.open(served, "#view=compare")
        everything = page.locator("#items .list > p").inner_text()
        page.locator("#task-lists").click()
        expect(page.locator("#items-title")).to_contain_text("Items of lists")
        some = page.locator("#items .list > p").inner_text()
        page.locator("#dir-lost").check(force=True)
        expect(page.locator("#items .list > p")).not_to_have_text(some)
        link = page.url
        counted = page.locator("#items .list > p").inner_text()
        page.go_back()
        page.go_back()
        expect(page.locator("#items .list > p")).to_have_text(everything)
        page.goto("about:blank")
        page.goto(link)
        watched.settled()
        expect(page.locator("#items .list > p")).to_have_text(counted)
        expect(page.locator("#dir-lost")).to_be_checked()


def test_two_studies_side_by_side(chromium, served):
    with Watched(chromium) as watched:
        page = watched.open(served, "#view=compare")
        page.get_by_role("group", name="B Compared").get_by_label("Study").select_option("1")
        expect(page.locator("#summary")).to_contain_text("160 items match")
        expect(page.locator("#summary")).to_contain_text("80 are only in A")
        page.locator("#swap").click()
        expect(page.locator("#summary")).to_contain_text("80 only in B")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A study in which every name, text and message wants to run."""
    folder = viewed(tmp_path_factory.mktemp("hostile") / "<b>odd", odd=HOSTILE, items=6)
    (folder / "work").mkdir()
    odd = {"study": HOSTILE, "warnings": [HOSTILE], "running": [{"kind": HOSTILE, "step": HOSTILE}]}
    (folder / "work" / "status.json").write_text(json.dumps(status_of(**odd)))
    with only_one(folder), Served(folder) as served:
        yield served


@pytest.mark.parametrize(("size", "scheme"), LOOKS[:2])
def test_hostile_names_are_shown_and_do_nothing(chromium, axe, hostile, size, scheme):
    served = hostile
    with Watched(chromium, size, scheme) as watched:
        page = watched.open(served)

        def harmless():
            assert page.evaluate("typeof hacked") == "undefined"
            assert page.locator("main img, main script").count() == 0
            assert sideways(page) <= 0
            assert violations(page, axe) == []

        expect(page.locator("h1")).to_have_text("invented" + HOSTILE)
        expect(page.locator("#progress")).to_contain_text(HOSTILE)
        harmless()
        page.locator("#view-compare").click()
        watched.settled()
        expect(page.locator("#sum-title")).to_contain_text(f"text{HOSTILE}/text{HOSTILE}")
        page.locator("#dir-all").check(force=True)
        page.locator("a.item").first.click()
        expect(page.locator("#item-title")).to_contain_text("coins" + HOSTILE)
        expect(page.locator(".output.a .text").first).to_contain_text(HOSTILE)
        expect(page.locator(".prompt .text")).to_contain_text(HOSTILE)
        harmless()
        page.reload()
        watched.settled()
        expect(page.locator("#item-title")).to_contain_text("coins" + HOSTILE)


def test_a_running_study_is_followed_until_its_results_are_there(chromium, tmp_path, axe):
    folder = tmp_path / "live"
    status = folder / "work" / "status.json"
    status.parent.mkdir(parents=True)

    def tell(**more):
        fresh = status.with_suffix(".part")
        fresh.write_text(json.dumps(status_of(**more)))
        os.replace(fresh, status)

    tell(done=3, waiting=7)
    with only_one(folder), Served(folder) as served, Watched(chromium) as watched:
        page = watched.open(served)
        expect(page.locator("#progress")).to_contain_text("3 of 11")
        expect(page.locator("#progress")).to_contain_text("1.2 k")
        expect(page.locator("#progress")).to_contain_text("a worker died")
        expect(page.locator("main")).to_contain_text("appear here by themselves")
        page.locator("#warnings").click()
        tell(done=8, waiting=2, seconds_left=30, seconds_left_range=[20, 100])
        expect(page.locator("#progress")).to_contain_text("8 of 11")
        expect(page.locator("#progress")).to_contain_text("about 30 s")
        expect(page.locator("#progress")).to_contain_text("20 s to 2 min")
        assert page.locator("progress").evaluate("e => e.value") == 8
        expect(page.locator("#said")).to_have_text("running: 8 of 11 steps done.")
        assert not page.locator("details.warnings").evaluate("e => e.open")  # stays as it was left
        page.locator("#view-compare").click()
        expect(page.locator("main")).to_contain_text("nothing to compare before a run has finished")
        page.locator("#view-study").click()
        made = viewed(tmp_path / "made", items=6) / "results"
        (folder / "results").mkdir()
        for name in ("items.parquet", "study.json"):  # as the engine does: the study's own facts last
            (made / name).rename(folder / "results" / name)
        expect(page.locator("main")).to_contain_text("effects are not worked out yet")
        (made / "effects.json").rename(folder / "results" / "effects.json")
        tell(done=11, waiting=0, state="done", running=[])
        expect(page.locator("table.forest")).to_be_visible()
        expect(page.locator("h1")).to_have_text("invented")
        expect(page.locator("#progress .badge")).to_contain_text("done")
        assert violations(page, axe) == []


def test_a_server_that_has_ended_is_said_once(chromium, folders):
    served = Served(folders[2])
    with served, Watched(chromium) as watched:
        page = watched.open(served)
        served.process.send_signal(signal.SIGINT)
        served.process.wait(20)
        expect(page.locator("#gone")).to_contain_text("codestage view has ended")
        expect(page.locator("#progress")).to_contain_text("3 of 11")  # what was known stays
        page.wait_for_timeout(2500)
        assert page.locator("#gone").count() == 1
        watched.wrong.clear()  # the browser notes each request that nobody answers


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from codestage.report.page import write_report

    folder = viewed(tmp_path_factory.mktemp("report"), items=30)
    return write_report(folder, folder / "results").html


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_the_report_is_quiet_fits_and_is_accessible(chromium, axe, report, size, scheme):
    with Watched(chromium, size, scheme) as watched:
        page = watched.page
        page.goto(report.as_uri())
        expect(page.locator("h1")).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        assert watched.hosts <= {("file", None), ("file", ""), ("data", None)}
        assert violations(page, axe) == []
        assert sideways(page) <= 0


def test_the_viewer_serves_the_report_with_nothing_that_runs(chromium, served, folders, report):
    shutil.copy(report, folders[0] / "results" / "report.html")
    with Watched(chromium) as watched:
        page = watched.open(served)
        page.reload()
        with watched.context.expect_page() as opened:
            page.get_by_role("link", name="Report").click()
        expect(opened.value.locator("h1")).to_be_visible()
        assert "/report/0/" in opened.value.url
        styled = opened.value.locator("main").evaluate("e => getComputedStyle(e).maxWidth")
        assert styled != "none"  # its own styles are let through
