"""Errors a user can mend. The command line prints their message, without a traceback."""


class UserError(ValueError):
    """Bad input: the message names the file, record or key, what was expected and how to mend it.

    The command line exits with 1.
    """


class ConfigError(UserError):
    """A config or a command line that cannot be used. The command line exits with 2."""
