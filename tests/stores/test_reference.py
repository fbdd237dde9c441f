"""The durable half of the contract, over plain dicts: what every engine inherits keeps the contract."""

from __future__ import annotations

from random import Random

from hypothesis import settings

from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine
from tests.stores.reference import ReferenceStore


class TestReferenceStore(StoreContract):
    """The contract, case by case."""

    def bench(self) -> Bench:
        return Bench(ReferenceStore())


class TestReferenceStoreThatLoadsByWhim(StoreContract):
    """The contract, where each decision is made several times, before it has all it asks for."""

    def bench(self) -> Bench:
        return Bench(ReferenceStore(whim=Random(7)))


TestReferenceStoreBesideItsModel = store_machine(lambda: Bench(ReferenceStore())).TestCase
TestReferenceStoreBesideItsModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
