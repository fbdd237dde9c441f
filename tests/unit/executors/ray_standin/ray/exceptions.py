"""Ray's exceptions, as far as its driver knows them."""

from __future__ import annotations


class RayError(Exception):
    pass


class TaskCancelledError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class ObjectLostError(RayError):
    pass


class NodeDiedError(RayError):
    pass


class RuntimeEnvSetupError(RayError):
    pass


class TaskUnschedulableError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause
