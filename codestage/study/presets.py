"""The studies that come with codestage, as text to start from."""

import difflib
from importlib import resources

from codestage.errors import UserError

_FOLDER = resources.files("codestage.study") / "presets"


def preset_names() -> list[str]:
    return sorted(f.name.removesuffix(".yaml") for f in _FOLDER.iterdir() if f.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The study file of a preset; UserError for a name that is none."""
    names = preset_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"no preset {name!r}; {hint}known: {', '.join(names)}")
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
