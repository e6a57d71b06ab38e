"""Runs a small study with a remote store, in this process alone: `python shared_fixture.py STUDY STORE [DIE]`.

With DIE, the process is killed while it sends its so-and-so-many-th file.
"""

import os
import signal
import sys
from pathlib import Path

import fsspec

from codestage.engine import run as runs
from codestage.engine.ready import Ready
from codestage.engine.store import Store
from codestage.engine.work import Workshop

STUDY = """\
name: small
model: {family: llama, hidden_size: 32, layers: 1, heads: 2, precision: float32, compile: false}
tokenizer: {train: bpe, vocab_size: 384}
seeds: 1
sources:
  prose:     {domain: text, procedural: {form: prose, documents: 300, depth: [1, 1]}}
  chat:      {domain: text, format: instruct, procedural: {form: chat, documents: 400, depth: [1, 1]}}
  code_chat: {domain: code, format: instruct, procedural: {form: code_chat, documents: 200}}
stages:
  pretrain:
    tokens: 2k
    seq_len: 64
    batch_tokens: 512
    options: {text: {mix: {prose: 1}}}
  tune:
    tokens: 1k
    seq_len: 64
    batch_tokens: 512
    options:
      text:    {mix: {chat: 1}}
      uniform: {mix: {chat: 5, code_chat: 3}}
evaluate: {suites: [quickstart], cot: [off], items: 2}
"""


def run(study, url=None):
    """Run it; answers the labels of the steps that were done."""
    done = []

    def here(steps, store, *, workers, listener):
        shop = Workshop(Store(store.root), lambda: False, lambda body: None, compiled=False)
        ready = Ready([step for step in steps if not store.has(step)])
        while step := ready.take():
            listener("started", step, {})
            shop.do(step)
            done.append(step.label)
            ready.done(step)
            listener("done", step, {"seconds": 1.0})

    before, runs.run_steps = runs.run_steps, here
    try:
        runs.run(study, study.with_suffix(""), workers=1, on_event=lambda told: None, store=url)
    finally:
        runs.run_steps = before
    return done


def die_at(count):
    cls = fsspec.get_filesystem_class("file")
    real, seen = cls.put_file, []

    def put_file(self, *args, **kwargs):
        real(self, *args, **kwargs)
        seen.append(1)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    cls.put_file = put_file


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_at(int(sys.argv[3]))
    run(Path(sys.argv[1]), sys.argv[2])
