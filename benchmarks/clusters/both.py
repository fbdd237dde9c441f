"""The same Celery app, whose workers run bodies of ours as well."""

from __future__ import annotations

from clusters.theirs import celery
from quarterjack.executors.celery import serve_bodies

__all__ = ["celery"]

serve_bodies(celery, "clusters.ours:app")
