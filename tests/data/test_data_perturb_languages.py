"""Perturbations of nine languages: what is kept still parses and runs alike, and only what was meant is changed."""

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from programs_fixture import PROGRAMS

from codestage.data.answers_in_code import WORDS, is_program, perturb_answer
from codestage.data.clean import Ledger, clean
from codestage.data.languages import trees
from codestage.data.languages.names import renamed
from codestage.data.languages.trees import grammar_versions, parse
from codestage.data.perturb import IN_LANGUAGES, compiles, perturb
from codestage.data.sources import Example
from codestage.data.worlds import corpus
from codestage.errors import UserError
from codestage.study.schema_sources import LANGUAGES, RENDERINGS, TRANSFORMS, SourceSpec

NINE = LANGUAGES[1:]
DIRECTED = ("c", "cpp", "csharp")
INSIDE = re.compile(r"\\$|`a|<<<END")
"""What a line ends with, or holds, if the next is part of a macro or string."""
KNOWN = {
    "java": "main count width held Box grow println area size",
    "javascript": "width count held Box grow console log size height",
    "typescript": "width count held Box grow area Kind read first",
    "php": "$this $width $count $all grow Box",
    "csharp": "Main count Width Held Box Grow value Console total",
    "c": "main width count Box printf TWICE LIMIT",
    "cpp": "main width count held Box grow size printf std area",
    "go": "main width count held Box grow fmt str Println",
    "rust": "main width count held Box2 grow println HashMap told w",
}
"""What stays: others may know it, a string or macro names it, or it is given by its name."""


def changed(language, name, code=None):
    return perturb(name, PROGRAMS[language] if code is None else code, 0, language)


def comments(language, code):
    program = parse(language, code)
    return [program.text[a:b].decode() for a, b in program.comments()]


def tokens(language, code):
    """Without comments; the text of macros, which is one token, without the space around it."""
    program = parse(language, code)
    kinds = program.grammar.comments
    return [
        re.sub(rb"\s*//.*", b"", t.text).strip() if t.kind == "preproc_arg" else t.text
        for t in program.tokens()
        if t.kind not in kinds
    ]


def test_every_language_has_a_program_its_rules_and_its_words():
    assert set(PROGRAMS) == set(NINE) == set(trees.GRAMMARS)
    assert set(WORDS) == set(LANGUAGES)
    assert set(IN_LANGUAGES) == set(TRANSFORMS) - set(RENDERINGS)


@pytest.mark.parametrize("language", NINE)
def test_removing_comments_removes_nothing_else(language):
    code = PROGRAMS[language]
    bare = changed(language, "remove-comments")
    assert len(comments(language, code)) >= 5
    assert comments(language, bare) == []
    assert tokens(language, bare) == tokens(language, code)
    assert "/* no */ // no" in bare  # a string
    assert len(bare.splitlines()) < len(code.splitlines())
    at, touched = 0, parse(language, code).comments()
    lines = iter(bare.splitlines(keepends=True))
    for line in code.splitlines(keepends=True):
        end = at + len(line)
        if not any(a < end and at < b for a, b in touched):
            assert line in lines  # in their order
        at = end


@pytest.mark.parametrize("language", NINE)
def test_swapped_comments_are_the_same_at_other_places(language):
    before = comments(language, PROGRAMS[language])
    swapped = changed(language, "swap-comments")
    assert Counter(comments(language, swapped)) == Counter(before)
    assert tokens(language, swapped) == tokens(language, PROGRAMS[language])
    after = comments(language, swapped)
    assert sum(a != b for a, b in zip(after, before, strict=True)) >= len(before) / 2


@pytest.mark.parametrize("language", NINE)
def test_stripped_programs_are_read_as_the_same_tokens(language):
    code = PROGRAMS[language]
    stripped = changed(language, "strip-whitespace")
    assert tokens(language, stripped) == tokens(language, code)
    assert comments(language, stripped) == comments(language, code)
    assert len(stripped) < len(code)
    bare = changed(language, "strip-whitespace", changed(language, "remove-comments"))
    lines = bare.rstrip("\n").split("\n")
    before = ["", *lines]
    assert not any(
        line.startswith((" ", "\t"))
        for line, last in zip(lines, before, strict=False)
        if not INSIDE.search(last)
    )
    if trees.GRAMMARS[language].lines:
        assert len(lines) > 10
    elif language not in DIRECTED and language != "php":
        assert len(lines) == 1
    else:  # one line between those for the preprocessor, or behind PHP's tag and heredoc
        assert len(lines) < len(code.splitlines()) / 2


@pytest.mark.parametrize("language", NINE)
def test_renaming_is_one_to_one_and_leaves_what_others_know(language):
    code = PROGRAMS[language]
    before, after = tokens(language, code), tokens(language, changed(language, "rename-variables"))
    assert len(before) == len(after)
    new = {(a, b) for a, b in zip(before, after, strict=True) if a != b and re.fullmatch(rb"\$?\w+", a)}
    names = {a.decode(): b.decode() for a, b in new}
    assert len(new) == len(names) == len(set(names.values())) >= 8
    assert all(re.fullmatch(r"\$?v\d+", b) for b in names.values())
    assert not names.keys() & set(KNOWN[language].split())
    assert ("$step" if language == "php" else "step") in names
    assert compiles(changed(language, "rename-variables"), language)


@pytest.mark.parametrize("language", NINE)
def test_keywords_become_words_of_no_meaning(language):
    made = changed(language, "replace-keywords")
    assert not compiles(made, language)
    before = re.findall(r"\w+", changed(language, "remove-comments"))
    words = Counter(before) - Counter(
        re.findall(r"\w+", perturb("remove-comments", made, 0, language) or made)
    )
    assert {"if", "for"} <= words.keys()
    assert "/* no */ // no" in made
    assert comments(language, PROGRAMS[language])[0] in made


@pytest.mark.parametrize("language", NINE)
@pytest.mark.parametrize("name", IN_LANGUAGES)
def test_fragments_and_generated_programs_can_be_perturbed_in_all_ways(language, name):
    made = [row["text"] for row in corpus("programs", documents=20, depth=(1, 3), language=language)]
    done = [perturb(name, text, 0, language) for text in made]
    assert None not in done
    keeps = name != "replace-keywords"
    assert all(compiles(text, language) is keeps for text in done)
    assert sum(a != b for a, b in zip(made, done, strict=True)) >= {
        "unchanged": 0,
        "swap-comments": 2,
    }.get(name, 20)


def run(folder, command, file, code):
    (folder / file).write_text(code)
    env = os.environ | {"LC_ALL": "C.UTF-8"}
    for part in command:
        done = subprocess.run(
            [word.format(f=file) for word in part],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr[:2000]
    return done.stdout


COMPILERS = {
    "c": ("box.c", [["gcc", "-w", "-o", "box", "{f}"], ["./box"]]),
    "cpp": ("box.cpp", [["g++", "-w", "-std=c++17", "-o", "box", "{f}"], ["./box"]]),
    "javascript": ("box.js", [["node", "{f}"]]),
    "java": ("Main.java", [["java", "-XX:TieredStopAtLevel=1", "{f}"]]),
    "rust": ("box.rs", [["rustc", "-Awarnings", "-Cdebuginfo=0", "-o", "box", "{f}"], ["./box"]]),
    "php": ("box.php", [["php", "{f}"]]),
    "go": ("box.go", [["go", "run", "{f}"]]),
}


@pytest.mark.parametrize("language", COMPILERS)
def test_what_should_not_change_the_meaning_does_not(tmp_path, language):
    file, command = COMPILERS[language]
    if not shutil.which(command[0][0]):
        pytest.skip(f"{command[0][0]} is not installed")
    code = PROGRAMS[language]
    said = run(tmp_path, command, file, code)
    assert "total 42" in said
    swapped = changed(language, "swap-comments")
    for name in ("rename-variables", "strip-whitespace", "remove-comments"):
        swapped = changed(language, name, swapped)
    assert not comments(language, swapped)
    assert run(tmp_path, command, file, swapped) == said


def test_c_is_stripped_but_for_lines_of_the_preprocessor():
    code = "#include <stdio.h>\n#define TWICE(a) ((a) * 2) // a\n\nint  f(int *p,\n    int q) {\n#ifdef Q\n    return q - -1;\n  #endif\n    return a / *p; // b\n}\n"
    assert changed("c", "strip-whitespace", code) == (
        "#include <stdio.h>\n#define TWICE(a) ((a) * 2) // a\nint f(int*p,int q){\n#ifdef Q\nreturn q- -1;\n#endif\n"
        "return a/ *p;// b\n}\n"
    )


def test_lines_end_where_they_end_statements():
    assert changed(
        "javascript", "strip-whitespace", "let a = 1\n\nlet b = a\n    + +a\nif (b) {\n  a = /x/\n}\n"
    ) == ("let a=1\nlet b=a\n+ +a\nif(b){\na=/x/\n}\n")
    assert changed("go", "remove-comments", "func f() int {\n\treturn g() /* a\n\tb */ + 1\n}\n") == (
        "func f() int {\n\treturn g()\n + 1\n}\n"
    )
    assert changed(
        "java", "remove-comments", "int f(int/* a */b, /* c */ int d) { // e\n    // f\n    return b;\n}"
    ) == ("int f(int b, int d) {\n    return b;\n}")


def test_a_macro_ends_where_it_ended():
    code = "#define ONE \\\n    1 \\\n    /* end */\nint n = ONE;\n"
    assert changed("c", "remove-comments", code) == "#define ONE \\\n    1 \\\n\nint n = ONE;\n"
    windows = changed("c", "remove-comments", code.replace("\n", "\r\n"))
    assert windows == "#define ONE \\\r\n    1 \\\r\n\nint n = ONE;\r\n"


def test_a_line_for_the_preprocessor_may_stand_behind_a_byte_order_mark():
    code = "\ufeff#include <a.h>\nint  n;\nint m;\n"
    assert changed("c", "strip-whitespace", code) == "\ufeff\n#include <a.h>\nint n;int m;\n"


def test_white_space_stays_behind_the_tags_of_php():
    code = "<?php if ($a) { ?>x<?php } ?>"
    assert changed("php", "strip-whitespace", code) == "<?php if($a){?>x<?php }?>\n"
    code = "<?php if ($a) { ?>x<?php // c\n } ?>"
    assert changed("php", "strip-whitespace", code) == "<?php if($a){?>x<?php // c\n}?>\n"
    code = "<?php if ($a) { ?>x<?php /* c */ } ?>"
    assert changed("php", "remove-comments", code) == "<?php if ($a) { ?>x<?php } ?>"


def test_a_comment_takes_no_code_in():
    php = "<?php\n$a = /* a */ 1; // b ?>\n<?php\n$c = /* c */ 1;\n"
    assert changed("php", "swap-comments", php) == (
        "<?php\n$a = /* c */ 1; // b ?>\n<?php\n$c = /* a */ 1;\n"
    )
    rust = "/// A.\nfn a() {\n    b();\n    ////////\n}\n/// B.\nfn b() {\n    a();\n    /***/\n}\n"
    made = changed("rust", "swap-comments", rust)
    assert made.startswith("/// B.\nfn a() {\n    b();\n    /")
    assert "}\n/// A.\nfn b() {" in made


def test_names_that_stand_in_strings_and_in_calls_stay():
    assert perturb("rename-variables", 'fn f(a: i32, b: i32) { println!("{a} {}", b); }', 3, "rust") in (
        'fn v0(a: i32, v1: i32) { println!("{a} {}", v1); }',
        'fn v1(a: i32, v0: i32) { println!("{a} {}", v0); }',
    )
    rust = 'fn f(len: usize, v: &[i32]) { assert!(v.len() > len, "{}", x::len::y()); }'
    made = perturb("rename-variables", rust, 0, "rust")
    assert re.search(r"v\d\.len\(\) > v\d, \S+ x::len::y", made)
    php = "$a = 1; $b = compact('a'); $c = \"$b {$d['c']}\"; f(c: $b);"
    made = perturb("rename-variables", php, 0, "php")
    assert made in ("$a = 1; $v0 = compact('a'); $c = \"$v0 {$d['c']}\"; f(c: $v0);",)
    js = "const { a, b: c } = o; const d = { a, c: c + this.c }; function e(f) { return f.d }"
    made = perturb("rename-variables", js, 0, "javascript")
    assert "{ a, b: v" in made
    assert "= { a, c: v" in made
    assert "this.c" in made
    assert made.endswith(".d }")
    java = "class A { int n; void set(int n) { this.n = n; } int more() { return n; } void put(int m) { m = n; } }"
    assert "put(int v0) { v0 = n; }" in perturb("rename-variables", java, 0, "java")
    assert "set(int n)" in perturb("rename-variables", java, 0, "java")


def test_a_new_name_is_one_that_the_program_has_not():
    code = "function f(v0) { return v1 + v0 + outer }"
    program = parse("javascript", code)
    assert {new for *_, new in renamed(program, random.Random(0))} == {b"v0", b"v2"}


@pytest.mark.parametrize(
    ("language", "code", "new"),
    [
        ("php", "function f($v0, $t) { $g = 9.8; return $v0 * $t - $g; } f(v0: 5, t: 2);", "v1 v2"),
        ("php", "$g = 9.8; return $v0 * $g;", "v1"),
        ("c", "#define ONE (v0 + 1)\nint f(int a) { return a + ONE; }\n", "v1 v2"),
        ("javascript", "(function (/* a */ /* b */) {})()", ""),
        ("javascript", "function f(/* a */ b) { return b }", "v0 v1"),
    ],
)
def test_new_names_are_free_and_as_few_as_the_old(language, code, new):
    edits = renamed(parse(language, code), random.Random(0))
    assert {name.decode().removeprefix("$") for *_, name in edits} == set(new.split())


def test_what_a_macro_of_rust_calls_by_its_path_or_shows_stays():
    code = "fn add(a: i32) -> i32 { a }\nmod t { fn adds() { assert_eq!(super::add(1), 1); } }\n"
    made = changed("rust", "rename-variables", code)
    assert "fn add(v" in made
    assert "super::add(1)" in made
    assert "fn adds" not in made
    made = changed("rust", "rename-variables", 'fn f(x: i32, y: i32) { println!(r#"{x}"#); g(y) }')
    assert "(x: i32, v" in made


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("javascript", "no"),
        ("javascript", "Answer: no"),
        ("javascript", "[1, 2]"),
        ("typescript", "'a'"),
        ("go", "no"),
        ("php", "Hello <b>you</b>."),
        ("php", "no;"),
        ("java", "the dog"),
        ("csharp", "12"),
        ("cpp", "void f( {"),
        ("rust", "it is so"),
        ("c", "a\0b;"),
    ],
)
def test_short_answers_are_no_programs(language, text):
    assert not is_program(text, language)
    assert perturb_answer(["unchanged"], text, language) is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("java", "int twice(int n) { return 2 * n; }"),
        ("java", "public Box(int n) { this.n = n; }"),
        ("csharp", "public string Name { get; set; } private int n;"),
        ("php", "public function twice($n) { return 2 * $n; }"),
        ("php", "<?php echo 1;"),
        ("cpp", "std::cout << 1 << std::endl;"),
        ("c", "for (int i = 0; i < 3; i++) n += i;"),
        ("typescript", "const shown = <b>{name}</b>;"),
        ("javascript", "twice(n) { return 2 * n; }"),
        ("rust", 'println!("{}", 1);'),
        ("go", "total := 1\nfmt.Println(total)"),
    ],
)
def test_fragments_are_programs(language, text):
    assert is_program(text, language)
    for name in IN_LANGUAGES:
        assert perturb_answer([name], text, language) is not None
    assert tokens(language, changed(language, "strip-whitespace", text)) == tokens(language, text)


def test_fenced_programs_of_the_language_are_perturbed_and_others_stay():
    told = "So:\n```js\nlet n = 1; // a\n```\nor\n```python\nn = 1  # b\n```\nor\n```JavaScript\nlet m = 2; // c\n```\n"
    assert perturb_answer(["remove-comments"], told, "javascript") == (
        "So:\n```js\nlet n = 1;\n```\nor\n```python\nn = 1  # b\n```\nor\n```JavaScript\nlet m = 2;\n```\n"
    )
    assert perturb_answer(["replace-keywords"], told, "javascript").startswith(
        "So:\n```\n"
    )  # js no more
    assert perturb_answer(["unchanged"], told, "rust") is None
    assert perturb_answer(["unchanged"], "So:\n```\nlet n = 1;\n```\n", "javascript") is None  # or Rust


def test_what_goes_and_what_stays_is_counted_by_language():
    held = [
        Example("a", "Write it.", "```go\nx := 1 // one\n```", meta={"lang": "go"}),
        Example("b", "Write it.", "```rust\nlet x = 1; // one\n```", meta={"lang": "rust"}),
        Example("c", "Is it?", "no", meta={"lang": "rust"}),
    ]
    spec = SourceSpec(
        domain="code", format="instruct", path="x", transform=["remove-comments"], programming_language="rust",
        where={"lang": ["rust", "zig"]},
    )  # fmt: skip
    ledger = Ledger()
    assert [item.response for item in clean(held, spec, ledger)] == ["```rust\nlet x = 1;\n```"]
    assert ledger.removed == {"where": 1, "transform": 1}
    assert ledger.examples[0] == {"document": "a", "rule": "where", "why": "lang go"}
    assert ledger.transformed == {"changed": 1, "rust": 1}


def test_a_grammar_that_is_missing_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tree_sitter_java", None)
    trees._load.cache_clear()
    with pytest.raises(
        UserError, match=r"tree-sitter-java is not installed; pip install 'codestage\[languages\]'"
    ):
        perturb("unchanged", "int n = 1;", 0, "java")
    assert perturb("unchanged", "n = 1", 0) == "n = 1"


def test_versions_of_the_grammars_are_known_for_the_identity():
    assert set(grammar_versions("csharp")) == {"tree-sitter", "tree-sitter-c-sharp"}
    assert all(re.fullmatch(r"\d+\.\d+", version) for version in grammar_versions("go").values())
    assert grammar_versions("python") == {}
