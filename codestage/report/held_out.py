"""Loss on rows that no arm trains on: the same rows for every arm, so that losses compare."""

from collections.abc import Sequence

import numpy as np

from codestage.report.document import Cell, Section, Table
from codestage.report.records import HeldOut, Records
from codestage.report.text import DASH


def held_out(records: Records) -> Section | None:
    """Each arm's loss on what every source holds out, at the end of each stage; mean over seeds."""
    if not records.held_out:
        return None
    sources = list(dict.fromkeys((h.source, h.domain) for h in records.held_out))
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for arm in [str(a["name"]) for a in records.study["arms"]]:
        for stage in records.stages:
            found = [h for h in records.held_out if (h.arm, h.stage) == (arm, stage)]
            if not found:
                continue
            losses = [_last([h for h in found if h.source == source]) for source, _ in sources]
            rows.append([arm, stage, *(DASH if x is None else f"{x:.3f}" for x in losses)])
            data.append([arm, stage, *losses])
    head = ["arm", "stage", *(f"{source} ({domain})" for source, domain in sources)]
    said = (
        "Nats a token on rows that were kept from all arms, at the end of each stage, mean over seeds. These are the same "
        "rows for every arm, so a column may be read downwards; sources differ in how easily they are predicted, so a row "
        "may not be read across."
    )
    table = Table("held-out", "Loss on held-out rows of each source", head, rows, data, 2)
    return Section("held-out", "Held-out loss", (said,), tables=[table])


def _last(found: Sequence[HeldOut]) -> float | None:
    """Mean over seeds of the last measurement; None where there is none."""
    ends = {h.seed: h.loss for h in sorted(found, key=lambda h: h.tokens)}
    return float(np.mean(list(ends.values()))) if ends else None
