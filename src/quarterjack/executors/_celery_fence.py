"""Who may run an attempt on Celery: keys beside the results, asked by both ends, each question in one step.

    quarterjack:<job>.wanted    the attempt whose body may begin; another one takes its place, a cancel removes it
    quarterjack:<ref>.begun     that attempt's body has begun ("1"), or nobody takes it up any more ("over");
                                a message that arrives twice finds it
    quarterjack:<ref>.alive     its process was there a moment ago
    quarterjack:<ref>.orders    a list: who puts something there asks the body to stop

A message may be delivered twice and a worker may die unheard: Celery promises no
more. With these, a body begins at most once, none that nobody wants begins, and
a dead process is noticed. A process says every few seconds that it is there, and
writes down once more what a server that lost its data has forgotten of it."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BEGIN",
    "CLOSE",
    "KEEP",
    "KEPT_S",
    "PULSE",
    "TAKE_UP",
    "WANT",
    "WITHDRAW",
    "alive_key",
    "begun_key",
    "job_of",
    "orders_key",
    "wanted_key",
]

KEPT_S: Final = 86_400
"""Keys of jobs that nobody watches any more go by themselves."""

WANT: Final = """
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1 - redis.call('EXISTS', KEYS[2])
"""
"""KEYS wanted, begun; ARGV ref, seconds. 0: it has begun already, from a message of before."""

TAKE_UP: Final = """
local running = redis.call('GET', KEYS[1])
if running and redis.call('GET', 'quarterjack:' .. running .. '.begun') == '1' then
    return {running, redis.call('EXISTS', 'quarterjack:' .. running .. '.alive')}
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {}
"""
"""KEYS wanted; ARGV ref (of the new attempt), seconds.

The attempt of the job that has begun, and of which no store knows how it ended, and
whether its process is there: it stays the one that is wanted. Else nothing, and the new
one is wanted.
"""

KEEP: Final = """
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('EXPIRE', KEYS[2], ARGV[1])
"""
"""KEYS begun, result; ARGV seconds. The outcome is on its way to the app's store: so long it can still be taken up."""

CLOSE: Final = """
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return redis.call('SET', KEYS[1], 'over', 'EX', ARGV[1])
"""
"""KEYS begun, result, alive, orders; ARGV seconds. Nobody takes this attempt up any more."""

BEGIN: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then return 0 end
redis.call('SET', KEYS[3], '1', 'EX', ARGV[3])
return 1
"""
"""KEYS wanted, begun, alive; ARGV ref, seconds, seconds to live. 1: the body may begin, nobody else may."""

PULSE: Final = """
redis.call('SET', KEYS[3], '1', 'EX', ARGV[3])
local wanted = redis.call('GET', KEYS[1])
if wanted and wanted ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if redis.call('EXPIRE', KEYS[2], ARGV[2]) == 0 then redis.call('SET', KEYS[2], '1', 'EX', ARGV[2]) end
return 1
"""
"""KEYS wanted, begun, alive; ARGV ref, seconds, seconds to live. 0: another attempt is wanted by now."""

WITHDRAW: Final = """
if redis.call('EXISTS', KEYS[2]) == 1 then
    if ARGV[3] ~= '' then
        redis.call('RPUSH', KEYS[3], ARGV[3])
        redis.call('EXPIRE', KEYS[3], ARGV[2])
    end
    return 0
end
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
"""KEYS wanted, begun, orders; ARGV ref, seconds, an order or "". 1: the body has not begun, and will not.

0: it has, and was given the order.
"""


def wanted_key(ref: str) -> str:
    """Return the key that holds the attempt of *ref*'s job that is wanted."""
    return f"quarterjack:{job_of(ref)}.wanted"


def begun_key(ref: str) -> str:
    """Return the key that is there once the body of *ref* has begun."""
    return f"quarterjack:{ref}.begun"


def alive_key(ref: str) -> str:
    """Return the key that is there while the process of *ref*'s body is."""
    return f"quarterjack:{ref}.alive"


def orders_key(ref: str) -> str:
    """Return the list that tells the body of *ref* to stop."""
    return f"quarterjack:{ref}.orders"


def job_of(ref: str) -> str:
    """Return the job's id of ``<job id>.<attempt>``."""
    return ref.rpartition(".")[0]
