"""Procedural corpora: a small world of reasoning, told as prose and as programs."""

from codestage.data.worlds.corpus import corpus, episodes, eval_items, split_of
from codestage.data.worlds.episode import Episode
from codestage.data.worlds.grammar import SENTENCES
from codestage.data.worlds.skills import SKILLS

__all__ = ["SENTENCES", "SKILLS", "Episode", "corpus", "episodes", "eval_items", "split_of"]
