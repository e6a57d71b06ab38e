"""The command line itself: what the commands are added to."""

import typer

app = typer.Typer(
    help="At which training stage, in what dose and order does code data help a model reason?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
