"""Preparing data on the machines of a Ray cluster, through Ray Data, with the same result to the byte.

Source files and results folder must be visible to every node under the same path, or be in a bucket.
"""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from codestage.data.encode import CHUNK
from codestage.engine.data_work import items_of
from codestage.engine.ray_arms import connect
from codestage.errors import RunError, UserError

P = TypeVar("P")
R = TypeVar("R")
HANDED_OVER = 500
"""Results that go from a node to this process at once."""


class OnRay:
    """A `Spread` over the cluster at `address` ("auto": the one this machine belongs to)."""

    def __init__(self, address: str) -> None:
        self._ray = ray = connect(address)
        try:
            import ray.data
        except ImportError as error:
            raise UserError(f"Ray Data: {error}; pip install 'codestage[ray]'") from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True  # what makes the result the same
        context.enable_progress_bars = False

    def parts(self, function: Callable[[P], Iterator[R]], parts: Sequence[P]) -> Iterator[R]:
        """A task for each part: many files are cleaned side by side, one file is not cut."""

        def work(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
            return _packed(function(pickle.loads(batch["part"][0])))

        rows = [{"part": pickle.dumps(part)} for part in parts]
        data = self._ray.data.from_items(rows, override_num_blocks=len(rows))
        yield from self._results(data.map_batches(work, batch_size=1))

    def documents(self, function: Callable[[list[Any]], R], path: Path) -> Iterator[R]:
        """A task for each chunk of rows."""

        def work(table: Any) -> Iterator[dict[str, Any]]:
            return _packed(iter([function(list(items_of(table)))]))

        data = self._ray.data.read_parquet(str(path.resolve()))
        yield from self._results(data.map_batches(work, batch_size=CHUNK, batch_format="pyarrow"))

    def _results(self, data: Any) -> Iterator[Any]:
        """What the tasks yielded; a complaint from one of them is raised here."""
        try:
            for row in data.iter_rows():
                complaint, results = pickle.loads(row["results"])
                yield from results
                if complaint:
                    raise UserError(complaint)
        except self._ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise RunError(f"the Ray cluster could not go on: {last}; run again to go on") from None


def _packed(results: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """Results as rows of a data set, some hundred at a time, with the complaint that ended them."""
    held: list[Any] = []
    complaint = ""
    try:
        for result in results:
            held.append(result)
            if len(held) == HANDED_OVER:
                yield {"results": [pickle.dumps(("", held))]}
                held = []
    except UserError as error:
        complaint = str(error)
    yield {"results": [pickle.dumps((complaint, held))]}
