"""The public evaluation sets that stand beside a checkout, where they do."""

from pathlib import Path

import pytest

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "eval"


def published() -> Path:
    """Their folder; skips the test where there is none."""
    if not PUBLISHED.is_dir():
        pytest.skip("the public evaluation sets (../shared/data/eval) are not here")
    return PUBLISHED
