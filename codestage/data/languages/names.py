"""Which names a program binds itself: variables, parameters and functions, as text, over the whole program.

As in Python's rules, scopes are not told apart: a name that is also a field's, a method's or a type's, that is
imported or given by keyword somewhere in the program, stays everywhere.
"""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from codestage.data.languages.trees import Program

if TYPE_CHECKING:
    from tree_sitter import Node

Edit = tuple[int, int, bytes]
"""(first byte, last byte + 1, new text)."""


def renamed(program: Program, rng: random.Random) -> list[Edit]:
    """The edits that name what the program binds `v0`, `v1`, … (`$v0` in PHP), in random order."""
    names = program.grammar.names
    places = list(_names(program))
    texts = {text for _, text in places}
    bound, kept = _bound(program), _kept(program)
    order = sorted(n for n in (bound - kept) & texts if not n.startswith(("__", f"{names.sign}__")))
    rng.shuffle(order)
    taken = {text.removeprefix(names.sign) for text in (texts | kept) - set(order)}
    free = (n for i in itertools.count() if (n := f"v{i}") not in taken)
    new = {name: next(free) for name in order}
    return [
        (
            node.start_byte - program.shift,
            node.end_byte - program.shift,
            _with_sign(new[text], text, names.sign),
        )
        for node, text in places
        if text in new
    ]


def _with_sign(new: str, old: str, sign: str) -> bytes:
    return f"{sign}{new}".encode() if sign and old.startswith(sign) else new.encode()


def _names(program: Program) -> Iterator[tuple["Node", str]]:
    """Leaves that may be renamed, with their text."""
    names = program.grammar.names
    for node, field in program.walk(names.skip | program.grammar.comments | names.leaves):
        if node.type not in names.leaves:
            continue
        parent = node.parent.type if node.parent else ""
        place = (parent, field)
        only = names.only.get(node.type)
        if place in names.fixed or (only is not None and place not in only):
            continue
        if parent != "token_tree" or not _of_something(node):
            yield node, program.word(node)


def _of_something(node: "Node") -> bool:
    """In what a macro of Rust's is given, which is not parsed: whether a name follows a dot or is part of a path."""
    before, after = node.prev_sibling, node.next_sibling
    return bool((before and before.type in (".", "::", "'")) or (after and after.type in ("::", "!")))


def _bound(program: Program) -> set[str]:
    """What is bound anywhere, methods left out."""
    names = program.grammar.names
    found: set[str] = set()
    for node, _ in program.walk(names.skip):
        places = names.binds.get(node.type)
        if places and not _known_outside(program, node):
            lower = node.type in names.lower
            new = set(_inside(program, node, places, _prototype(program, node)))
            found |= {n for n in new if not lower or n[0].islower() or n[0] == "_"}
    return found


def _kept(program: Program) -> set[str]:
    """What stays though it is bound."""
    names = program.grammar.names
    kept = set(names.kept)
    for node, _ in program.walk():
        if places := names.keeps.get(node.type):
            kept |= set(_leaves(program, node) if places == ("all",) else _inside(program, node, places))
        if node.type in names.binds and _known_outside(program, node):
            kept |= set(_inside(program, node, names.binds[node.type]))
        if told := names.told.get(node.type):
            own = _parameters(program, node)
            groups = (m.groups() for m in re.finditer(told, program.word(node)))
            kept |= {g for found in groups for g in found if g} - own
        if node.type == "token_tree":
            kept |= {program.word(n) for n in node.children if n.type == "identifier" and _given(n)}
    return kept | ({f"{names.sign}{n}" for n in _without_sign(program)} if names.sign else set())


def _without_sign(program: Program) -> Iterator[str]:
    """PHP: names of variables where they stand without their sign: in front of arguments, in `${name}`, and in
    the strings that `compact` is given.
    """
    for node, field in program.walk():
        parent = node.parent
        if node.type != "name" or parent is None:
            continue
        if parent.type == "dynamic_variable_name" or (parent.type == "argument" and field == "name"):
            yield program.word(node)
        elif parent.type == "function_call_expression" and program.word(node) == "compact":
            yield from re.findall(r"['\"](\w+)['\"]", program.word(parent))


def _given(node: "Node") -> bool:
    """In what a macro of Rust's is given: whether a name is `name: value` or `name = value`, which the macro may
    know by name, or the last of a path.
    """
    before, after = (other.type if other else "" for other in (node.prev_sibling, node.next_sibling))
    return after in (":", "=") or (before == "::" and after != "::")


def _parameters(program: Program, node: "Node") -> set[str]:
    """Those of the macro whose text `node` is."""
    own = node.parent.child_by_field_name("parameters") if node.parent else None
    return set(_leaves(program, own)) if own and node.type == "preproc_arg" else set()


def _known_outside(program: Program, node: "Node") -> bool:
    """Whether what `node` binds is a method's or a field's name, or another file's."""
    names = program.grammar.names
    above = [node.parent, node.parent.parent if node.parent else None]
    if any(n and n.type in names.methods for n in above):
        return True
    return any(program.word(child) in names.marks for child in node.children) if names.marks else False


def _prototype(program: Program, node: "Node") -> bool:
    """Whether functions that `node` declares are defined elsewhere."""
    if not program.grammar.names.prototypes or node.type != "declaration":
        return False
    return not (node.parent and node.parent.type == "compound_statement")


def _children(node: "Node", places: Iterable[str]) -> list["Node"]:
    """The children that `places` names."""
    named: Mapping[str, list[Node]] = {
        "self": [node],
        "all": node.named_children,
        "first": node.named_children[:1],
        "last": node.named_children[-1:],
        "rest": node.named_children[1:],
    }
    found: list[Node] = []
    for place in places:
        if place.startswith("."):
            found += [n for n in node.named_children if n.type == place[1:]]
        else:
            found += named[place] if place in named else node.children_by_field_name(place)
    return found


def _inside(
    program: Program, node: "Node", places: Iterable[str], prototype: bool = False
) -> Iterator[str]:
    """Names in the patterns and declarators at `places`."""
    names = program.grammar.names
    stack = _children(node, places)
    while stack:
        here = stack.pop()
        if here.type in names.leaves or here.type.endswith("field_identifier") or not here.child_count:
            yield program.word(here)
        elif prototype and here.type == "function_declarator":
            stack += [n for n in here.named_children if n.type == "parenthesized_declarator"]
        elif here.type in names.within:
            stack += _children(here, names.within[here.type])


def _leaves(program: Program, node: "Node") -> Iterator[str]:
    """All names under a node."""
    stack = [node]
    while stack:
        here = stack.pop()
        if here.type in program.grammar.names.leaves or not here.child_count:
            yield program.word(here)
        else:
            stack += here.children
