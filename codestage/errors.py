"""The two errors meant for people. Anything else that escapes is a bug and keeps its traceback."""


class UserError(Exception):
    """Bad input, found before any compute is spent. Exit status 2.

    The message says what is wrong (file, line, value) and what to change; following it works.
    """


class RunError(Exception):
    """Something failed under way (disk full, out of memory, diverged loss). Exit status 1.

    The message says where it happened, what is safe on disk, and what to do.
    """
