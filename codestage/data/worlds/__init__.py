"""Procedural corpora: a small world of reasoning, told as English prose and as Python programs."""

from codestage.data.worlds.corpus import corpus
from codestage.data.worlds.episode import Episode
from codestage.data.worlds.skills import SKILLS, episodes, eval_items, split_of

__all__ = ["SKILLS", "Episode", "corpus", "episodes", "eval_items", "split_of"]
