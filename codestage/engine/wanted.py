"""The steps that a study wants now, as far as they can be known without doing any."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codestage.engine.data_steps import data_steps
from codestage.engine.model_steps import model_shape, model_step
from codestage.engine.run import evaluation_steps, plan_training
from codestage.engine.store import Step, Store
from codestage.engine.until import added
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
    before = (data.tokenizer, *data.prepared.values())
    missing = tuple(step for step in before if not store.has(step))
    if not missing:
        known = added(store.root).items()
        more = {arm: [s for s in seeds if s not in study.seeds] for arm, seeds in known}
        works = plan_training(study, study_path, data, store, more)
        steps |= {s.hash: s for stages in works.values() for w in stages for s in w.segments}
        steps |= {s.hash: s for s in evaluation_steps(study, works, data, store).values()}
    return Wanted(steps, missing)
