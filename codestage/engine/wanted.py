"""The steps that a study wants now, as far as they can be known without doing any."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codestage.engine.data_steps import data_steps
from codestage.engine.model_steps import model_shape, model_step
from codestage.engine.run import evaluation_steps, plan_training
from codestage.engine.store import Step, Store
from codestage.study.load import load_study


@dataclass(frozen=True)
class Wanted:
    """`steps` by hash. `missing` are those whose results must be there before training can be laid out."""

    steps: Mapping[str, Step]
    missing: tuple[Step, ...]

    @property
    def complete(self) -> bool:
        """Whether training and evaluation are among the steps."""
        return not self.missing


def wanted(study_path: Path, store: Store) -> Wanted:
    """What the study of `study_path` wants of `store`, with the seeds that `run --until` has added there.

    Raises:
        UserError: the study cannot be read, or its data do not do for its arms.
        RunError: prepared data are damaged.
    """
    study = load_study(study_path)
    data = data_steps(study, study_path)
    model = model_step(study, study_path, model_shape(study, study_path))
    steps = {step.hash: step for step in (*data.all(), *([model] if model else []))}
    missing = tuple(step for step in data.prepared.values() if not store.has(step))
    if not missing:
        works = plan_training(study, study_path, data, store, _more_seeds(store.root, study.name))
        steps |= {s.hash: s for stages in works.values() for w in stages for s in w.segments}
        steps |= {s.hash: s for s in evaluation_steps(study, works, data).values()}
    return Wanted(steps, missing)


def _more_seeds(folder: Path, study: str) -> dict[str, list[int]]:
    """Arm -> seeds that rounds of `run --until` have added, as `results/study.json` tells them."""
    try:
        told = json.loads((folder / "results" / "study.json").read_text())
        if told["name"] != study or not told.get("until"):
            return {}
        more: dict[str, list[int]] = {}
        for entry in told["until"]["rounds"]:
            for arm in entry["arms"]:
                more.setdefault(str(arm), []).append(int(entry["seed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return more
