"""What has to be known of a language's grammar: its comments, strings, keywords, and where programs bind names.

The words in the tables are those of the tree-sitter grammars. Where a field's name is asked for, these stand for children
that have none: `self`, `all`, `first`, `last`, `rest` (all but the first), and `.TYPE` for those of a type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Places = Mapping[str, tuple[str, ...]]
"""Type of node -> its fields."""


@dataclass(frozen=True)
class Names:
    """Which names a program binds, and which of them others may know."""

    leaves: frozenset[str] = frozenset({"identifier"})
    """Nodes that are names."""
    binds: Places = field(default_factory=dict)
    """Where a name is bound: a variable, a parameter, a function."""
    within: Places = field(default_factory=dict)
    """Where names stand inside what is bound: patterns, declarators."""
    keeps: Places = field(default_factory=dict)
    """Names that stay, all over the program: of fields, methods and types, imported, given by keyword."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Type of node -> an expression whose groups are names in its text; they stay."""
    fixed: frozenset[tuple[str, str | None]] = frozenset()
    """(type of parent, field) of names of something else, whatever is bound."""
    only: Mapping[str, frozenset[tuple[str, str | None]]] = field(default_factory=dict)
    """Type of leaf -> the only places (type of parent, field) in which it is such a name."""
    skip: frozenset[str] = frozenset()
    """Nodes in which nothing is renamed."""
    methods: frozenset[str] = frozenset()
    """A function directly in one of these is a method, whose name stays."""
    marks: frozenset[str] = frozenset()
    """Words which, in front of what is bound, say that others know it: a parameter that is a field as well."""
    lower: frozenset[str] = frozenset()
    """Patterns in which a name with a capital is no new one."""
    prototypes: bool = False
    """A declaration of a function without its body binds nothing, unless it stands in a function."""
    kept: frozenset[str] = frozenset({"_"})
    """Words that stay."""
    sign: str = ""
    """What begins a variable's name."""


@dataclass(frozen=True)
class Grammar:
    """A tree-sitter grammar, and what its nodes are."""

    package: str
    functions: tuple[str, ...]
    """Of the package; the first that reads a text is taken."""
    comments: frozenset[str]
    whole: frozenset[str]
    """Nodes that are one token: strings, patterns."""
    words: frozenset[str]
    """Leaves that are keywords though the grammar gives them names."""
    names: Names
    around: tuple[tuple[str, str], ...] = ()
    """What a fragment may need around it: methods a class, statements a function."""
    no_words: frozenset[str] = frozenset({"_"})
    lines: bool = False
    """Whether the end of a line can end a statement."""
    directives: bool = False
    """Whether lines that begin with # are for a preprocessor."""
    attached: str = ""
    """An expression for what begins a comment that belongs to what stands next to it, for the compiler."""

    def functions_for(self, code: str) -> tuple[str, ...]:
        """PHP without its tag is read as what stands behind the tag."""
        if self.package == "tree_sitter_php":
            return ("language_php" if "<?" in code else "language_php_only",)
        return self.functions


def words(line: str) -> frozenset[str]:
    """The words of a line."""
    return frozenset(line.split())


CLASS = ("class A{\n", "}")
"""Methods stand in a class."""
