"""The one exception for what a user can mend: its text is one line that names the file, column, row or key at fault."""


class InputError(Exception):
    """Bad input. Stages print its text as one line and exit with status 1; no traceback."""
