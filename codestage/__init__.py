"""At which training stage, in what dose and in what order code data helps a model reason.

What notebooks and scripts use is in `codestage.api`; its names are here too, and loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codestage.api import Results, RunError, Study, UserError, load_study, mix, plan, results, run

__version__ = "0.1.0"
__all__ = ["Results", "RunError", "Study", "UserError", "load_study", "mix", "plan", "results", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("codestage.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
