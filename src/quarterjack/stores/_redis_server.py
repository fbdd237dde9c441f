"""A Redis or Valkey server: how it is reached, and whether it is one that jobs can be trusted to.

A store keeps jobs that must not vanish, so a server that throws keys away when its
memory is full is refused, as is one that is too old, or only a replica."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from quarterjack.errors import InvalidOption, StoreError, StoreUnavailable

from ._addresses import check_address, check_database_number
from ._urls import refuse_misspelt, without_password

__all__ = ["Address", "check_server"]

_OLDEST: Final = (6, 2)
_PREFIX: Final = re.compile(r"[^\s{}*?\[\]\\]{1,100}")
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss"}
"""What the driver calls otherwise."""


class Address:
    """Where a server is, and how to connect to it.

    Args:
        url: ``redis://``, ``rediss://`` (TLS), ``valkey://`` or ``unix://``, with the driver's own options.
        timeout_s: How long connecting may take.
        pool: Connections made by somebody else, such as those of a Sentinel; *url* then only names them.
    """

    def __init__(self, url: str, timeout_s: float, pool: ConnectionPool | None = None) -> None:
        self.shown = without_password(url)
        self._pool = pool
        self._kwargs: dict[str, Any] = {}
        self._make: Callable[..., AbstractConnection] = Connection
        if pool is None:
            self._read(url)
        self._kwargs.update(
            protocol=2,  # answers come in order, and nothing between them
            decode_responses=True,
            encoding_errors="surrogateescape",  # what a codec made of a payload is no text
            socket_timeout=None,  # deadlines are those of calls
            socket_connect_timeout=timeout_s,
            socket_keepalive=True,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),  # whoever asks decides what trying again is worth
        )

    def _read(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        known = f"{_SCHEMES.get(scheme, scheme)}{separator}{rest}"
        check_address(url)
        if scheme.partition(":")[0] != "unix":  # `own_options` leaves unix:/path
            check_database_number(url)
        try:
            self._kwargs = dict(parse_url(known))
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"{self.shown} is no URL of a Redis or Valkey server: {error}") from None
        self._make = self._kwargs.pop("connection_class", Connection)
        if self._make.__name__ == "UnixDomainSocketConnection" and not self._kwargs.get("path"):
            raise InvalidOption(f"{self.shown} names no socket; write unix:///var/run/valkey.sock")
        try:
            self.connection()
        except TypeError as error:
            raise InvalidOption(
                f"{self.shown} has an option that neither the store nor its driver knows: {_named(error)}"
            ) from None

    def connection(self) -> AbstractConnection:
        """Return a connection that is not connected yet."""
        if self._pool is None:
            kwargs = self._kwargs
            if self._make.__name__ == "UnixDomainSocketConnection":
                kwargs = {name: value for name, value in kwargs.items() if name != "socket_keepalive"}
            return self._make(**kwargs)
        kwargs = {**self._pool.connection_kwargs, **self._kwargs}
        made: AbstractConnection = self._pool.connection_class(**kwargs)
        return made


def _named(error: TypeError) -> str:
    """Return the option that a driver's class has refused."""
    found = re.search(r"argument '(\w+)'", str(error))
    return found[1] if found else str(error)


def own_options(url: str, names: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Return *url* without the options that are the store's own, and these, read.

    Raises:
        InvalidOption: If one has no value of its kind.
    """
    check_address(url)
    parts = urlsplit(url)
    own: dict[str, Any] = {}
    rest: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in names:
            refuse_misspelt(name, names, without_password(url))
            rest.append((name, value))
            continue
        try:
            own[name] = names[name](value)
        except ValueError:
            raise InvalidOption(f"{name}={value!r} in {without_password(url)} is not valid") from None
    return urlunsplit(parts._replace(query=urlencode(rest))), own


def checked_prefix(prefix: str) -> str:
    """Return *prefix* if keys may begin with it.

    Raises:
        InvalidOption: If not.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InvalidOption(f"prefix must be 1 to 100 characters, no spaces and none of {{}}*?[]\\, got {prefix!r}")
    return prefix


def check_server(info: str, where: str) -> None:
    """Look at what INFO says of a server.

    Raises:
        StoreError: If jobs cannot be trusted to it.
        StoreUnavailable: If it may become fit without anybody changing it.
    """
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    version = facts.get("redis_version", "0")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise StoreError(f"{where}: the server is version {version}; it takes Redis 6.2, any Valkey, or later ones")
    if facts.get("role") == "slave":
        primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
        raise StoreUnavailable(f"{where}: the server is a replica of {primary}, and takes no writes; connect to that")
    policy, most = facts.get("maxmemory_policy", "noeviction"), facts.get("maxmemory", "0")
    if policy != "noeviction" and most != "0":
        raise StoreError(
            f"{where}: when its memory ({most} bytes) is full, the server throws keys away, and jobs with them "
            f"(maxmemory-policy {policy}); set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in its "
            "configuration), or use a server of its own for caches"
        )
