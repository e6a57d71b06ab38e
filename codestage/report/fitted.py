"""The sections on doses, budgets, mixtures, and spread over tasks. Read from `effects.json` as it was written."""

from codestage.errors import UserError
from codestage.report.document import Section
from codestage.report.doses_seen import dose_section
from codestage.report.mixtures_seen import mixture_section
from codestage.report.over_tasks_seen import over_tasks_section
from codestage.report.records import MEND
from codestage.report.small_to_large import scaling_section
from codestage.report.view import View


def fitted_sections(view: View) -> list[Section | None]:
    """None for each that the study has nothing to say about.

    Raises:
        UserError: what effects.json holds is not what the analysis writes.
    """
    given = view.records.sections
    try:
        return [
            dose_section(view, given.get("doses") or ()),
            scaling_section(view, given.get("scaling") or (), given.get("decisions") or ()),
            mixture_section(view, given.get("mixtures")),
            over_tasks_section(view, given.get("over_tasks") or {}),
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        parts = "doses, scaling, decisions, mixtures or over_tasks"
        message = f"effects.json: {parts} cannot be read ({error!r}). {MEND}"
        raise UserError(message) from None
