"""The report: a pure function of the records, offline, safe with any name, and never claiming more."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_fixture import write

from codestage.analyse.run import analyse
from codestage.errors import UserError
from codestage.report.page import write_report
from codestage.report.text import LATEX, latex

HOSTILE = """<script>alert('x')</script>"&|$\\`*_[a](http://evil.example)"""


def made(folder, **options):
    """The report of invented records: its files."""
    write(folder, items=60, **options)
    effects = json.dumps(analyse(folder), allow_nan=False)
    (folder / "results" / "effects.json").write_text(effects)
    return write_report(folder, folder / "results")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, made(folder, pretrain=0.15)


def content(files):
    return {p.name: p.read_bytes() for p in [files.html, files.markdown, *files.figures, *files.tables]}


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_data(self, data):
        self.text += data


def test_the_same_records_give_the_same_bytes(plain):
    folder, files = plain
    before = content(files)
    assert content(write_report(folder, folder / "results")) == before


def test_the_page_needs_no_network_and_runs_no_code(plain):
    _, files = plain
    page = Page(files.html.read_text())
    assert "script" not in page.tags
    assert page.addresses
    assert all(a.startswith(("#", "data:")) for a in page.addresses)
    assert "url(" not in re.sub(r"url\(#", "", files.html.read_text())


def test_the_answer_comes_first_and_says_what_the_effects_say(plain):
    folder, files = plain
    page = Page(files.html.read_text())
    effects = {
        e["contrast"]: e
        for e in json.loads((folder / "results" / "effects.json").read_text())["effects"]
        if e["level"] == "overall"
    }
    assert effects["code@pretrain"]["verdict"] == "up"
    assert effects["code@tune"]["verdict"] == "open"
    said = page.text[: page.text.index("How sure this is")]
    assert "Code at pre-training raised accuracy" in said
    assert f"{effects['code@pretrain']['estimate']:.1f} points" in said
    assert "Whether code at tuning raises or lowers accuracy is not resolved" in said


def test_a_domain_that_the_continuous_score_turns_around_is_named(tmp_path):
    write(tmp_path, items=30)
    path = tmp_path / "results" / "items.parquet"
    rows = pq.read_table(path).to_pylist()
    rng = np.random.default_rng(0)
    turned = "code"
    for row in rows[:]:
        code = row["arm"].startswith("text+code/")
        effect = (0.3 if row["domain"] == turned else -0.3) * code
        rows.append(row | {"metric": "prob", "value": 0.5 + effect + rng.normal(0, 0.02)})
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    effects = json.dumps(analyse(tmp_path), allow_nan=False)
    (tmp_path / "results" / "effects.json").write_text(effects)
    told = write_report(tmp_path, tmp_path / "results").markdown.read_text()
    (line,) = [part for part in told.splitlines() if "In the continuous score" in part]
    assert re.search(rf"code at pre-training lowered, .*?, yet raised in {turned};", line)
    assert "yet" not in line.split("code at tuning")[1]


def test_every_effect_is_in_the_tables(plain):
    folder, files = plain
    effects = json.loads((folder / "results" / "effects.json").read_text())["effects"]
    table = next(p for p in files.tables if p.name == "effects.csv")
    rows = list(csv.DictReader(table.open()))
    assert [(r["contrast"], r["level"], r["name"]) for r in rows] == [
        (e["contrast"], e["level"], e["name"]) for e in effects
    ]
    assert [float(r["estimate"]) for r in rows] == pytest.approx([e["estimate"] for e in effects])


def test_every_section_that_a_reader_was_promised_is_there(plain):
    _, files = plain
    titles = re.findall(r"<h2>(.*?)</h2>", files.html.read_text())
    for wanted in ("By domain", "By task", "The grid, cell by cell", "Schedules", "Negative transfer"):
        assert wanted in titles
    for wanted in ("What could have been detected", "Realised doses", "Cost", "Method and caveats"):
        assert wanted in titles


def test_names_of_any_kind_stay_text(tmp_path):
    files = made(tmp_path, odd=HOSTILE)
    html = files.html.read_text()
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert all(a.startswith(("#", "data:")) for a in page.addresses)
    assert "alert('x')" in page.text  # shown, as text
    for line in files.markdown.read_text().splitlines():
        assert "<script" not in line
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) > 2
    for path in files.tables:
        if path.suffix == ".csv":
            widths = {len(row) for row in csv.reader(path.open())}
            assert len(widths) == 1


def test_one_seed_is_told_as_a_limit(tmp_path):
    files = made(tmp_path, seeds=1)
    assert "choice of items only" in Page(files.html.read_text()).text


@pytest.mark.parametrize("name", ["study.json", "runs.json", "effects.json", "items.parquet"])
@pytest.mark.parametrize("how", ["missing", "broken"])
def test_records_that_are_missing_or_broken_are_told_by_name(tmp_path, name, how):
    write(tmp_path, items=20)
    (tmp_path / "results" / "effects.json").write_text(json.dumps(analyse(tmp_path)))
    path = tmp_path / "results" / name
    path.unlink() if how == "missing" else path.write_text("{]")
    with pytest.raises(UserError, match=name):
        write_report(tmp_path, tmp_path / "results")


def test_a_number_that_is_none_is_refused(tmp_path):
    write(tmp_path, items=20)
    effects = analyse(tmp_path)
    effects["effects"][0]["estimate"] = float("nan")
    (tmp_path / "results" / "effects.json").write_text(json.dumps(effects))
    with pytest.raises(UserError, match="NaN is no number"):
        write_report(tmp_path, tmp_path / "results")


def test_held_out_loss_is_the_last_one_over_seeds_and_a_dash_where_unknown(tmp_path):
    write(tmp_path, items=60)
    arm = json.loads((tmp_path / "results" / "study.json").read_text())["arms"][0]["name"]
    where = {"arm": arm, "stage": "tune"}
    rows = [
        {**where, "seed": seed, "tokens": tokens, "source": "prose", "domain": "text", "loss": loss}
        for seed, tokens, loss in ((0, 20, 2.0), (0, 10, 9.0), (1, 20, 3.0))
    ]
    rows.append({**rows[0], "arm": "another", "source": "programs", "domain": "code"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "results" / "validation.parquet")
    effects = json.dumps(analyse(tmp_path), allow_nan=False)
    (tmp_path / "results" / "effects.json").write_text(effects)
    files = write_report(tmp_path, tmp_path / "results")
    (table,) = [t for t in files.tables if t.name == "held-out.csv"]
    assert list(csv.reader(table.open())) == [
        ["arm", "stage", "prose (text)", "programs (code)"],
        [arm, "tune", "2.5", ""],
    ]
    assert "2.500" in Page(files.html.read_text()).text


def test_held_out_losses_are_compared_in_words_a_chart_and_a_table(tmp_path):
    write(tmp_path, items=60)
    told = json.loads((tmp_path / "results" / "study.json").read_text())
    rng = np.random.default_rng(0)
    rows = [
        {
            "arm": arm["name"], "seed": seed, "stage": stage, "tokens": 9, "source": source, "domain": domain,
            "loss": 3.0 + shift * (arm["factors"]["pretrain"] != "text") + rng.normal(0, 0.01),
        }
        for arm in told["arms"]
        for seed in told["seeds"]
        for stage in told["stages"]
        for source, domain, shift in (("programs", "code", -0.5), ("prose", "text", 0.2))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "results" / "validation.parquet")
    effects = json.dumps(analyse(tmp_path), allow_nan=False)
    (tmp_path / "results" / "effects.json").write_text(effects)
    files = write_report(tmp_path, tmp_path / "results")
    (said,) = [
        line for line in files.markdown.read_text().splitlines() if "Loss on held-out rows, in" in line
    ]
    at = said.split("Code at ")
    assert re.search(
        r"pre-training: lower by 0\.[45]\d\d \(.*\) on programs; higher by 0\.[12]\d\d \(.*\) on prose\.",
        at[1],
    )
    assert at[2].strip() == "tuning: not resolved on programs and prose."
    tables = {t.name: list(csv.reader(t.open())) for t in files.tables}
    verdicts = {tuple(row[:2]): row[-1] for row in tables["held-out-effects.csv"][1:]}
    assert verdicts["code at pretrain", "programs"] == "better"
    assert verdicts["code at pretrain", "prose"] == "worse"
    others = [row[0] for row in tables["held-out-contrasts.csv"][1:]]
    assert "code at pretrain, right after pretrain" in others
    assert not {"code at pretrain", "code at tune"} & set(others)
    assert any(path.name == "held-out-effects.svg" for path in files.figures)


@given(st.text())
def test_no_text_acts_as_latex(text):
    """What is left beside our own escapes holds nothing that LaTeX would read as more than a letter."""
    left = latex(text)
    for escape in sorted(set(LATEX.values()), key=len, reverse=True):
        left = left.replace(escape, "")
    assert not set(left) & set("\\{}$&#_%^~\n\r")


def test_hostile_names_are_escaped_in_every_latex_table(tmp_path):
    files = made(tmp_path, odd=HOSTILE)
    tables = [p for p in files.tables if p.suffix == ".tex"]
    assert len(tables) > 10
    for path in tables:
        text = path.read_text()
        assert "`*_[" not in text
        for line in text.splitlines():
            if line.endswith(r"\\") and "&" in line:
                assert not re.search(r"(?<!\\)[_#%]", line)


def test_the_share_that_harm_is_measured_against_is_stated(plain):
    _, files = plain
    said = files.markdown.read_text()
    assert "two one-sided tests of equivalence (within 2 points or 0.05 bits per byte)" in said
    assert "harm beyond the margin of 2 points is ruled out" in said


def test_powers_and_stars_are_latex_that_any_compiler_knows():
    assert latex("3.4 × 10¹⁴") == r"3.4 $\times$ 10$^1$$^4$"
    assert latex("10⁻²") == "10$^{-}$$^2$"
    assert latex("*") == "{*}"
