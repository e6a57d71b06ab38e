"""What the pages say that is not written by hand: keys of the study file, commands; and links that leave the folder.

`<!-- every key of the study file -->` and `<!-- every command -->` on a page are replaced by what the schema and
the command line themselves say, so neither can go out of date.
"""

import json
import re
from pathlib import Path
from typing import Any

KEYS, COMMANDS = "<!-- every key of the study file -->", "<!-- every command -->"
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source|link)[^>]+(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)
OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+((?:tests|codestage|benchmarks|examples|README|CHANGELOG)[^)]*)\)"
)


def on_config(config: Any) -> Any:
    """Entries of the navigation that are patterns become the pages there are."""
    docs = Path(config["docs_dir"])
    config["nav"] = _found(config["nav"], docs)
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Generated parts put in; links to files that are not pages become names of files."""
    if KEYS in markdown:
        markdown = markdown.replace(KEYS, study_file())
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands())
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def on_files(files: Any, config: Any) -> Any:
    """The schema itself lies beside its page, for editors."""
    from mkdocs.structure.files import File

    from codestage.study.schema_json import json_schema

    content = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    files.append(File.generated(config, "reference/study.schema.json", content=content))
    return files


def on_post_build(config: Any, **_: Any) -> None:
    """No page may load anything from elsewhere: it must work offline, and tell nobody that it is read."""
    from mkdocs.exceptions import PluginError

    for page in Path(config["site_dir"]).rglob("*.html"):
        if found := ELSEWHERE.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page}: loads from elsewhere: {found[0]}")


def _found(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        filled = {title: _found(part, docs) for title, part in entry.items()}
        return {title: part for title, part in filled.items() if part}
    if isinstance(entry, list):
        parts = [_found(part, docs) for part in entry]
        return [p for part in parts for p in (part if isinstance(part, list) else [part]) if p]
    if "*" in entry:
        return [path.relative_to(docs).as_posix() for path in sorted(docs.glob(entry))]
    return entry


def commands() -> str:
    """Every command with its arguments and options, as Typer tells them."""
    import typer
    from typer.cli import get_docs_for_click

    from codestage.cli import app

    group = typer.main.get_command(app)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="codestage")
    _, _, each = text.partition("\n## ")
    return "## " + re.sub(r"^\* `--help`: .*\n", "", each, flags=re.MULTILINE)


def study_file() -> str:
    """A table for each part of the study file: key, what it takes, default, what it is."""
    from codestage.study.schema_json import json_schema

    schema = json_schema()
    parts = {"Study": schema} | schema["$defs"]
    places = _places(schema)
    return "\n\n".join(_table(parts[name], places[name]) for name in places)


def _places(schema: dict[str, Any]) -> dict[str, str]:
    """Part -> where it stands in the file, the file's own keys first, then as they are met."""
    found = {"Study": "A study"}
    waiting = ["Study"]
    while waiting:
        name = waiting.pop(0)
        part = schema if name == "Study" else schema["$defs"][name]
        for key, value in part["properties"].items():
            for ref in re.findall(r"#/\$defs/(\w+)", json.dumps(value)):
                if ref not in found:
                    within = "" if name == "Study" else found[name].strip("`") + "."
                    many = ".NAME" if "additionalProperties" in json.dumps(value) else ""
                    found[ref] = f"`{within}{key}{many}`"
                    waiting.append(ref)
    return found


def _table(part: dict[str, Any], title: str) -> str:
    rows = [
        f"| `{key}` | {_takes(value)} | {_default(key, value, part)} | {_cell(value.get('description', ''))} |"
        for key, value in part["properties"].items()
    ]
    head = [
        f"## {title}",
        "",
        part.get("description", ""),
        "",
        "| key | takes | default | |",
        "|---|---|---|---|",
    ]
    return "\n".join(head + rows)


def _takes(value: dict[str, Any]) -> str:
    """What may be written, in a few words."""
    if "$comment" in value:
        return str(value["$comment"])
    if "$ref" in value:
        return f"[its own keys](#{_anchor(value['$ref'])})"
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "const" in value:
        const = value["const"]
        return f"`{const if isinstance(const, str) else json.dumps(const)}`"
    if "anyOf" in value:
        return " or ".join(_takes(one) for one in value["anyOf"] if one.get("type") != "null")
    kind = value.get("type")
    if kind == "array":
        if "prefixItems" in value:
            return "a list of " + ", ".join(_takes(one) for one in value["prefixItems"])
        return "a list of " + re.sub("^(count|share|name)", r"\1s", _takes(value["items"]))
    if kind == "object":
        named = value.get("patternProperties") or {"": value["additionalProperties"]}
        return "name: " + " or ".join(map(_takes, named.values()))
    if kind is None and "allOf" in value:
        return _takes(value["allOf"][0])
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}
    return words[str(kind)] + _range(value)


def _range(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {value[key]}" for key, sign in signs.items() if key in value]
    return f" {', '.join(told)}" if told else ""


def _anchor(ref: str) -> str:
    """The heading of a part, as Markdown's table of contents names it."""
    from codestage.study.schema_json import json_schema

    place = _places(json_schema())[ref.rpartition("/")[2]]
    return re.sub(r"[^\w\s-]", "", place).strip().lower().replace(" ", "-")


def _default(key: str, value: dict[str, Any], part: dict[str, Any]) -> str:
    if key in part.get("required", ()):
        return "**needed**"
    default = value.get("default")
    if default is None or isinstance(default, dict):
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("->", "→")
