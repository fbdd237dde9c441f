"""What goes wrong with a Redis or Valkey server, in words that say what to do next.

The driver's errors become `StoreError`, and `StoreUnavailable` where trying again
may help. The address is told without its password."""

from __future__ import annotations

from typing import Final

from redis import exceptions

from quarterjack.errors import StoreError, StoreUnavailable

__all__ = ["explained"]


def explained(error: Exception, where: str, doing: str) -> StoreError:
    """Return what to raise in place of *error*, which came while *doing* something with the server at *where*."""
    words = str(error)
    for kind, code, make, advice in _KNOWN:
        if isinstance(error, kind) and words.startswith(code):
            return make(f"{where}: {advice} (while {doing}: {words or type(error).__name__})")
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
        return StoreUnavailable(f"{where}: no answer while {doing}: {words or type(error).__name__}; {_UNREACHABLE}")
    return StoreError(f"{where}: {type(error).__name__} while {doing}: {words}")


_UNREACHABLE: Final = "is the server running, and is this its address? It is tried again at the next call"

_Known = tuple[type[Exception], str, type[StoreError], str]
_ANY: Final = exceptions.ResponseError
_KNOWN: Final[tuple[_Known, ...]] = (
    (
        exceptions.AuthenticationError,
        "",
        StoreError,
        "the server refused the user or the password; write redis://user:password@host, or redis://:password@host",
    ),
    (
        exceptions.AuthenticationWrongNumberOfArgsError,
        "",
        StoreError,
        "the server takes no user name; leave it out: redis://:password@host",
    ),
    (
        exceptions.BusyLoadingError,
        "",
        StoreUnavailable,
        "the server is loading its data from disk; it answers when that is done",
    ),
    (
        exceptions.ReadOnlyError,
        "",
        StoreUnavailable,
        "the server is a read-only replica; give the address of its primary, or reach it through Sentinel",
    ),
    (
        exceptions.NoPermissionError,
        "",
        StoreError,
        "the server's user may not do this; it needs `~{prefix}:* &{prefix}:* +@all -@admin -@dangerous +info`",
    ),
    (
        exceptions.OutOfMemoryError,
        "",
        StoreUnavailable,
        "the server's memory is full; raise its maxmemory, or keep finished jobs for a shorter time",
    ),
    *(
        (
            kind,
            code,
            StoreError,
            "the server is a node of a cluster, and the store's keys belong to another one; give that one's address",
        )
        for kind, code in ((exceptions.MovedError, ""), (_ANY, "MOVED "))
    ),
    *(
        (
            kind,
            code,
            StoreUnavailable,
            "the cluster is down, or has no primary for the store's keys; see CLUSTER INFO on the server",
        )
        for kind, code in ((exceptions.ClusterDownError, ""), (_ANY, "CLUSTERDOWN "))
    ),
    (
        _ANY,
        "MISCONF ",
        StoreUnavailable,
        "the server cannot save to disk and takes no writes; its log says why",
    ),
    (
        _ANY,
        "NOREPLICAS ",
        StoreUnavailable,
        "the server takes no writes while its replicas are away (min-replicas-to-write)",
    ),
    (
        _ANY,
        "BUSY ",
        StoreUnavailable,
        "the server is busy with somebody's long script; it answers when that ends, or after SCRIPT KILL",
    ),
    (
        _ANY,
        "DB index is out of range",
        StoreError,
        "the server has no database of that number; a cluster has only /0",
    ),
    (
        exceptions.RedisError,
        "max number of clients",
        StoreUnavailable,
        "the server takes no more connections; raise its maxclients",
    ),
)
"""Which error, how its words begin, what it becomes, and what to do. Not every version of the driver has a class for
each of the server's codes: where it has one, the code is not among the words."""
