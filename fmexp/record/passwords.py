"""Passwords and tokens in URIs, and in texts with URIs in them, are shown as ***.

The rules are SQLAlchemy's (`sqlalchemy.engine.url`), whose passwords may hold a slash, a space or a
colon, and wider where they are stricter: a password with an @ in it, which SQLAlchemy wants as %40,
is hidden too. Where a text is not clear, more is hidden rather than less.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_USER_AND_PASSWORD = re.compile(
    r"(?<![\w+.-])((?!https?://)[a-z][\w+.-]*://[^:/\s'\"]*"
    r"|https?://[^:/\s'\"]*(?=:(?!\d+[/?#\s])))"  # of a server, a port may stand there
    r":(?! ).*@",
    re.IGNORECASE,
)
_TOKEN_AS_USER = re.compile(r"((?:https?|databricks|ftp)://)[^@:/\s'\"]+@", re.IGNORECASE)
_ODBC = re.compile(r"(?<=[?&;])(odbc_connect|odbc%5fconnect)=[^'\"\n]*", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&;#])([\w.%+-]+)=([^&\s'\"]*)")
_SECRET_NAME = re.compile(
    r".*(password|passwd|passphrase|passw|pwd|secret|token|credential|signature).*"
    r"|pass|auth|sig|key|(api|access|private|account|ssl)[_-]?key",
    re.IGNORECASE,
)


def without_password(text: str) -> str:
    """A URI, or a text with URIs in it, with each password and token as ***.

    >>> without_password("postgresql://me:secret@host:5432/runs")
    'postgresql://me:***@host:5432/runs'
    >>> without_password("http://token@host:5000?token=secret is down")
    'http://***@host:5000?token=*** is down'
    """
    if "://" not in text:
        return text
    text = _ODBC.sub(r"\1=***", text)
    text = _USER_AND_PASSWORD.sub(r"\1:***@", text)
    text = _TOKEN_AS_USER.sub(r"\1***@", text)
    return _PARAMETER.sub(_hidden, text)


def no_password(text: str) -> str:
    """As `without_password`, but each password is left out, so that the URI can be used.

    >>> no_password("tracking.uri=postgresql://me:secret@host:5432/runs?password=x")
    'tracking.uri=postgresql://me@host:5432/runs'
    """
    shown = without_password(text)
    return re.sub(r"[?&][\w.%+-]+=\*\*\*", "", re.sub(r":?\*\*\*@", "@", shown)).replace(
        "://@", "://"
    )


def without_passwords(tree: object) -> object:
    """The same for all texts in a tree of plain values."""
    if isinstance(tree, dict):
        return {key: without_passwords(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_passwords(value) for value in tree]
    return without_password(tree) if isinstance(tree, str) else tree


def _hidden(parameter: re.Match[str]) -> str:
    name, value = parameter[1], unquote(parameter[2])
    is_pair = ":" in value and ("@" in value or "user" in unquote(name).lower())
    if _SECRET_NAME.fullmatch(unquote(name)) or is_pair:
        return f"{name}=***"
    return parameter[0]
