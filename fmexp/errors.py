"""The exceptions that reach a user, each with the exit code of the command that meets it.

FmexpError (1: the work failed)
├── StoreError (1)          the record could not be written or read
└── UserError (2)           what the user gave is wrong; nothing was written
    ├── ConfigError
    ├── DataError
    └── MissingPackageError
"""


class FmexpError(Exception):
    """The work failed; the message says what happened and what to do."""

    exit_code = 1


class StoreError(FmexpError):
    """The tracking store cannot be opened, written or read."""


class UserError(FmexpError):
    """The input is wrong: the message says what was expected, what came, where, and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """Keys or values of the configuration are wrong; one message names them all."""


class DataError(UserError):
    """A table cannot be used as it is."""


class MissingPackageError(UserError):
    """An optional package is needed; the message holds the command that installs it."""
