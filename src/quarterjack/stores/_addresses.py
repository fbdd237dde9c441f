"""Whether the URL of a server can be read as it was meant, before a driver reads it.

A user or a password with a sign that ends a part of a URL makes another URL of it:
its beginning would be taken for a host or a port, and be told in errors. So nothing
of such a URL is told, only how to write it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from quarterjack.errors import InvalidOption

from ._urls import without_password

__all__ = ["check_address", "check_database_number"]

_SIGNS: Final = "user and password in a URL are percent-encoded: # is %23, / is %2F, @ is %40, ? is %3F, : is %3A"
_END_OF_HOST: Final = re.compile(r"[/?#]")
_HOST: Final = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
"""One host, perhaps an IPv6 address in its brackets, and its port."""
_NUMBER: Final = re.compile(r"/?|/[0-9]+")
_MAX_PORT: Final = 65_535


def check_address(url: str) -> None:
    """Refuse a URL whose user, password, host or port is not what it looks like.

    Raises:
        InvalidOption: If so; the text has nothing of the password.
    """
    scheme, _, rest = url.partition("://")
    location = _END_OF_HOST.split(rest, maxsplit=1)[0]
    login, at, hosts = location.rpartition("@")
    path, _, query = rest[len(location) :].partition("?")
    if "#" in rest or (location and "@" in path) or _splits(login) or _hides_a_login(query):
        raise InvalidOption(f"the {scheme}:// URL of the store has a sign in it that ends a part of a URL; {_SIGNS}")
    try:
        urlsplit(url)
    except ValueError:  # its words have parts of the URL
        raise InvalidOption(f"the {scheme}:// URL of the store names no host that there could be; {_SIGNS}") from None
    named = [port for name, value in parse_qsl(query) if name == "port" for port in value.split(",")]
    if all(_has_port(host) for host in hosts.split(",")) and all(map(_is_port, named)):
        return
    shown = without_password(url) if at else f"{scheme}://…"  # without an @ it may be a password that has lost its host
    raise InvalidOption(f"the port in {shown} is no number from 1 to {_MAX_PORT}; {_SIGNS}")


def check_database_number(url: str) -> None:
    """Refuse what stands where the number of a database belongs; a driver would take 0 for it.

    Raises:
        InvalidOption: If it is no number.
    """
    if not _NUMBER.fullmatch(unquote(urlsplit(url).path)):
        raise InvalidOption(
            f"the database in {without_password(url)} is no number; write it as redis://host:6379/0, and a name as "
            "the prefix of the keys: redis://host:6379/0?prefix=shop"
        )


def _splits(login: str) -> bool:
    return bool(set(login) & set("@[]"))


def _hides_a_login(query: str) -> bool:
    """Return whether what stands behind the first ``?`` was the rest of a password: no option has such a name."""
    return any("@" in part.partition("=")[0] for part in query.split("&"))


def _has_port(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and (not found["port"] or _is_port(found["port"]))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_PORT
