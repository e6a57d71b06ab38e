"""Whether what a study rests on was made with the libraries that are installed here."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from codestage.engine.store import Step, Store, libraries

ROUNDING = ("torch", "transformers", "numpy")
"""Libraries whose versions move what is trained and measured by rounding."""
LOOKED_AT = 1000
"""Steps whose record is read: 57 microseconds each on a local disk, more over a network."""


@dataclass
class Versions:
    """Remembers what was said, so that it is said once."""

    said: bool = False

    def warning(self, finished: Sequence[Step], store: Store) -> str | None:
        """What to say if trained or evaluated steps were made with others than those here; of many steps some,
        at even distances, are looked at."""
        steps = [step for step in finished if step.kind in ("train", "evaluate")]
        if self.said or not steps:
            return None
        here, found, looked = libraries(), Counter[str](), 0
        steps = steps[:: -(-len(steps) // LOOKED_AT)]
        store.fetch(
            [(step.kind, step.hash, "step.json") for step in steps]
        )  # of a remote store, at once
        for step in steps:
            with suppress(OSError, ValueError, KeyError, AttributeError):  # `read` says what is damaged
                made = store.record(step)["libraries"]
                looked += 1
                found.update(f"{n} {made[n]}" for n in ROUNDING if n in made and made[n] != here[n])
        if not found:
            return None
        self.said = True
        others = ", ".join(f"{what} ({count})" for what, count in sorted(found.items()))
        mine = ", ".join(f"{name} {here[name]}" for name in ROUNDING)
        return (
            f"of {looked} finished steps looked at, some were made with {others}; here is {mine}. Results of the two "
            "differ by rounding: for the same bits install what made them, or begin in another --out"
        )
