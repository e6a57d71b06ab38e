"""A model's own code: programs that stand beside its weights and are run only where the user says so.

The word for it is `--trust-remote-code`, on the command line alone: a study file cannot ask for it. What is
admitted becomes known to Transformers in this process, as codestage's own PanGu does, so that all that reads
models goes on as before; a step that needs it says so (`Step.code`), and whoever does the step admits it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codestage.errors import UserError

SWITCH = "--trust-remote-code"


@dataclass(frozen=True)
class Code:
    """Where code stands that may be run: a folder or a hub id, with its commit."""

    place: str
    revision: str | None = None


def own_code(place: str, more: Mapping[str, Any]) -> Code | None:
    """The code that the model at `place` needs and nothing here has; None where it needs none.

    Nothing is run. `more` is what `place_of` gives beside the place.

    Raises:
        UserError: the code stands in another repository than the model.
    """
    if "gguf_file" in more:
        return None
    from transformers import PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        settings, _ = PretrainedConfig.get_config_dict(place, **more)
    except Exception:
        return None
    names = settings.get("auto_map") or {}
    if settings.get("model_type") in CONFIG_MAPPING or not names:
        return None
    if any("--" in str(name) for name in names.values()):
        raise UserError(
            f"{place}: its code stands in another repository, which no hash here would cover; fetch both into one "
            "folder and give that"
        )
    return Code(place, more.get("revision"))


def admit(code: Code) -> None:
    """Run a model's code and make what it defines known to Transformers, in this process.

    Raises:
        UserError: it cannot be run, or does not define what its configuration names.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    settings, _ = PretrainedConfig.get_config_dict(code.place, revision=code.revision)
    try:
        names = settings["auto_map"]
        found: list[Any] = [
            get_class_from_dynamic_module(names[part], code.place, revision=code.revision)
            for part in ("AutoConfig", "AutoModelForCausalLM")
        ]
        config, model = found
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise UserError(f"{code.place}: its own code cannot be used: {told}") from None


def came_from_outside(model_type: str) -> bool:
    """Whether it is code of a model's own that computes models of this type, in this process."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = model_type in CONFIG_MAPPING
    return known and CONFIG_MAPPING[model_type].__module__.startswith("transformers_modules.")


def unreadable(told: str, error: Exception) -> UserError:
    """What to say where Transformers cannot read the model that people call `told`."""
    if "trust_remote_code" in str(error):
        return UserError(
            f"{told}: brings code of its own, which runs only if you say so; read its .py files, then add {SWITCH} "
            "to the command"
        )
    return UserError(f"{told}: no model that Transformers can read: {error}")
