"""The page's server: files of the page, and what it asks for, as small JSON answers.

Every answer of `/api/` is an object; where the request cannot be answered it is `{error}` with a
sentence for people and status 400 or 404. Studies are named by their place on the command line.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from codestage.errors import UserError
from codestage.report.viewer.detail import detail
from codestage.report.viewer.guard import Guard
from codestage.report.viewer.items import (
    DIRECTIONS,
    Asked,
    Comparison,
    Side,
    compare,
    describe,
    page,
    places,
    summary,
)
from codestage.report.viewer.studies import Cache, Folder

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""The report carries its own styles and pictures, and nothing that runs."""
MOST_ROWS = 200
AFTERWARDS = (("effects", "json"), ("report", "html"))
"""Results that are worked out from the records, a little after them."""
KEPT = 3
"""Comparisons kept: paging through one, and going back to the one before."""
EFFECT_KEYS = (
    "contrast label family level name metric stage cot estimate low high p_adjusted verdict unit n_items seeds"
).split()
Status = Callable[[Path], dict[str, Any]]


class NotFound(UserError):
    """What was asked for does not exist here."""


def make_app(
    folders: Sequence[Path], status: Status, token: str, once: set[str] | None = None
) -> Starlette:
    """The application over `folders`; `status` tells how far the study in a folder is.

    `token` opens the page; each of `once` opens it a single time.
    """
    views = Views([Folder(path) for path in folders], status)
    routes = [
        Route("/api/studies", _json(views.studies)),
        Route("/api/status", _json(views.status)),
        Route("/api/effects", _json(views.effects)),
        Route("/api/compare", _json(views.compare)),
        Route("/api/items", _json(views.items)),
        Route("/api/item", _json(views.item)),
        Route("/report/{study}/", views.report),
        Route("/report/{study}/tables/{name}", views.table),
        *(Route(path, _file(body, kind)) for path, (body, kind) in _page_files().items()),
    ]
    guard = Middleware(Guard, token=token, once=set() if once is None else once)
    missing = {404: lambda request, error: _answer({"error": f"nothing at {request.url.path}"}, 404)}
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=missing)
    app.router.redirect_slashes = False
    return app


class Views:
    """What each address answers. A method takes the request's query."""

    def __init__(self, folders: Sequence[Folder], status: Status) -> None:
        self._folders, self._status = list(folders), status
        self._compared = Cache(KEPT)
        self._places = Cache(len(folders))

    def studies(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`{studies: [{id, folder, name, ready, effects, report, error, seeds, stages, arms, tasks, places}]}`.

        `arms`: `{name, role, factors, code}`; `tasks`: `{name, domain, metric, chance, cot}`; `places`:
        each `{stage, cot, metric}` that has scores. A study without results has only the first seven.
        """
        return {"studies": [self._told(i) for i in range(len(self._folders))]}

    def status(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`{status, note, stamp}`: as `codestage status --json`, or null and why; `stamp` changes when
        results come or change.
        """
        folder = self._folder(query, "study")
        names = ("study.json", "items.parquet", "effects.json", "report.html")
        stamp = "-".join(str(s[0] if (s := folder.stamp(name)) else 0) for name in names)
        try:
            return {"status": self._status(folder.path), "note": None, "stamp": stamp}
        except (UserError, OSError) as error:  # another person's folder may not be readable as a whole
            return {"status": None, "note": str(error), "stamp": stamp}

    def effects(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`{places, stage, cot, metric, alpha, margin, notes, rows}` of one stage, mode and metric (the
        last stage, the first mode and metric, unless asked). A row is an effect of `effects.json` with
        `pair`: two arms that show it, or null.
        """
        folder = self._folder(query, "study")
        told, pairs = folder.effects(), folder.pairs()
        keys = ("stage", "cot", "metric")
        found = list(dict.fromkeys(tuple(row[k] for k in keys) for row in told["effects"]))
        order = {stage: -i for i, stage in enumerate(folder.told()["stages"])}
        preferred = sorted(found, key=lambda place: order.get(place[0], 1))
        fits = [p for p in preferred if all(query.get(k, v) == v for k, v in zip(keys, p, strict=True))]
        if found and not fits:
            raise UserError(
                "no effects with " + ", ".join(f"{k} {query[k]!r}" for k in keys if k in query)
            )
        at = fits[0] if fits else (None, None, None)
        rows = [row for row in told["effects"] if tuple(row[k] for k in keys) == at]
        return {
            "places": [dict(zip(keys, place, strict=True)) for place in found],
            **dict(zip(keys, at, strict=True)),
            "alpha": told["alpha"],
            "margin": told.get("margins", {}).get(at[2]),
            "notes": told["notes"],
            "rows": [
                {k: r.get(k) for k in EFFECT_KEYS} | {"pair": pairs.get(r["contrast"])} for r in rows
            ],
        }

    def compare(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Of `a`, `arm_a`, `stage_a`, `b`, `arm_b`, `stage_b`, `cot`, `metric`, `seed` (or all):
        `{kind, lower_is_better, seeds, matched, only_a, only_b, gold_differs, total, tasks}`, where `total`
        and each of `tasks` has `{items, pairs, unknown, mean_a, mean_b, gained, lost, same, p}`.
        """
        asked = self._asked(query)
        return summary(self._comparison(asked), asked)

    def items(self, query: Mapping[str, str]) -> dict[str, Any]:
        """As `compare`, with `task`, `direction`, `offset`, `limit`: `{total, offset, seeds, rows}`; a row is
        `{task, item, a, b, gained, lost}`, `a` and `b` the scores at each seed, null = unknown.
        """
        asked = self._asked(query)
        direction = query.get("direction", "all")
        if direction not in DIRECTIONS:
            raise UserError(f"direction is one of {', '.join(DIRECTIONS)}, not {direction!r}")
        return page(
            self._comparison(asked),
            asked.metric,
            task=query.get("task"),
            direction=direction,
            offset=_number(query, "offset", 0, 2**40),
            limit=_number(query, "limit", 50, MOST_ROWS),
        )

    def item(self, query: Mapping[str, str]) -> dict[str, Any]:
        """As `compare`, with `task` and `item`: `{task, item, gold, prompt, note, a, b}`; `a` and `b` have an
        entry a seed: `{seed, value, status, output, choice_scores, chosen, prompt_hash, …, metrics}`.
        """
        return detail(self._asked(query), _text(query, "task"), _text(query, "item"))

    def report(self, request: Request) -> Response:
        """The report's page as it lies in the results folder."""
        try:
            folder = self._folder(request.path_params, "study")
            body = (folder.path / "results" / "report.html").read_bytes()
        except (OSError, UserError):
            return Response("no report yet", 404, media_type="text/plain")
        return Response(body, headers={"Content-Security-Policy": REPORT_POLICY}, media_type="text/html")

    def table(self, request: Request) -> Response:
        """A table that is too long for the page: one of the files that lie beside it, by its name."""
        try:
            tables = self._folder(request.path_params, "study").path / "results" / "tables"
            held = {file.name: file for file in tables.glob("*.csv")}
            body = held[request.path_params["name"]].read_bytes()
        except (OSError, UserError, KeyError):
            return Response("no such table", 404, media_type="text/plain")
        return Response(body, media_type="text/csv")

    def _told(self, i: int) -> dict[str, Any]:
        folder = self._folders[i]
        answer: dict[str, Any] = {"id": i, "folder": str(folder.path), "name": folder.path.name}
        answer |= {name: folder.stamp(f"{name}.{kind}") is not None for name, kind in AFTERWARDS}
        answer |= {"ready": folder.ready, "error": None}
        if not folder.ready:
            return answer
        try:
            study = folder.told()
            answer |= {key: study[key] for key in ("name", "seeds", "stages", "tasks")}
            key = (i, folder.stamp("study.json"), folder.stamp("items.parquet"))
            answer |= {"arms": describe(study), "places": self._places.get(key, lambda: places(folder))}
        except UserError as error:
            answer |= {"ready": False, "error": str(error)}
        return answer

    def _folder(self, query: Mapping[str, str], name: str) -> Folder:
        place = query.get(name, "0")
        if not (place.isascii() and place.isdigit() and int(place) < len(self._folders)):
            raise NotFound(
                f"there is no study {place!r} here: {len(self._folders)} were opened, counted from 0"
            )
        return self._folders[int(place)]

    def _asked(self, query: Mapping[str, str]) -> Asked:
        a, b = (
            self._side(
                self._folder(query, side), _text(query, f"arm_{side}"), _text(query, f"stage_{side}")
            )
            for side in ("a", "b")
        )
        seed = query.get("seed", "all")
        whole = None if seed == "all" else _number(query, "seed", 0, 2**62)
        return Asked(a, b, _text(query, "cot"), _text(query, "metric"), whole)

    def _side(self, folder: Folder, arm: str, stage: str) -> Side:
        study = folder.told()
        if arm not in (entry["name"] for entry in study["arms"]):
            raise NotFound(f"{folder.path}: there is no arm {arm!r}")
        if stage not in study["stages"]:
            raise NotFound(
                f"{folder.path}: there is no stage {stage!r}; stages: {', '.join(study['stages'])}"
            )
        return Side(folder, arm, stage)

    def _comparison(self, asked: Asked) -> Comparison:
        key = (asked.a, asked.b, asked.cot, asked.metric, asked.seed, asked.stamps())
        found: Comparison = self._compared.get(key, lambda: compare(asked))
        return found


def _text(query: Mapping[str, str], name: str) -> str:
    if name not in query:
        raise UserError(f"the request lacks {name}")
    return query[name]


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    given = query.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 20 and int(given) <= most):
        raise UserError(f"{name} is a whole number from 0 to {most}, not {given!r}")
    return int(given)


def _json(view: Callable[[Mapping[str, str]], dict[str, Any]]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        try:
            return _answer(view(request.query_params), 200)
        except UserError as error:
            return _answer({"error": str(error)}, 404 if isinstance(error, NotFound) else 400)

    return endpoint


def _answer(body: dict[str, Any], code: int) -> Response:
    # ASCII only: a name may hold half a surrogate pair, which no encoding carries.
    return Response(json.dumps(body, allow_nan=False), code, media_type="application/json")


def _file(body: bytes, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response(body, media_type=kind)


def _page_files() -> dict[str, tuple[bytes, str]]:
    """Address -> body and media type. The files are read here: no address is ever looked up on disk."""
    found = {}
    for file in files("codestage.report.viewer").joinpath("static").iterdir():
        kind = KINDS.get(Path(file.name).suffix)
        if kind:
            found["/" if file.name == "index.html" else f"/{file.name}"] = (file.read_bytes(), kind)
    return found
