"""A job asked for inside a transaction of SQLAlchemy's: it is there if, and only if, the transaction commits.

    pip install "sqlalchemy[asyncio]" asyncpg               # and psycopg, to take that instead
    DATABASE_URL=postgresql+asyncpg://user:password@host/shop python examples/sqlalchemy_orders.py
    DATABASE_URL=postgresql+psycopg://user:password@host/shop python examples/sqlalchemy_orders.py

The first order commits: its receipt is sent. The second rolls back: nobody ever hears of its receipt. The body writes
what it did, and that it is done, in one transaction too: a receipt is noted once, however often a worker dies.
"""

from __future__ import annotations

import asyncio
import os

from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from quarterjack import Job, JobGone, Quarterjack

DATABASE = make_url(os.environ.get("DATABASE_URL", "postgresql+asyncpg://localhost/shop"))
JOBS = os.environ.get("JOBS_URL", DATABASE.set(drivername="postgresql").render_as_string(hide_password=False))

engine = create_async_engine(DATABASE)
session = async_sessionmaker(engine)
app = Quarterjack(JOBS)  # the same database: one transaction covers both


class Base(DeclarativeBase):
    """The tables of the shop."""


class Order(Base):
    """What somebody bought."""

    __tablename__ = "example_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Receipt(Base):
    """What was sent for it."""

    __tablename__ = "example_receipts"
    order_id: Mapped[int] = mapped_column(primary_key=True)


@app.task(retry=5)
async def send_receipt(order_id: int) -> None:
    """Note the receipt, and that this job is done, together."""
    async with session.begin() as transaction:
        transaction.add(Receipt(order_id=order_id))
        await transaction.flush()
        await app.complete_in(transaction)  # last: if the lease is lost, all of it is rolled back


async def place(transaction: AsyncSession, item: str) -> Job[None]:
    """Store an order, and ask for its receipt, in the caller's transaction."""
    order = Order(item=item)
    transaction.add(order)
    await transaction.flush()
    return await app.submit_in(transaction, send_receipt, order.id)


async def main() -> None:
    """Place one order that holds and one that does not."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with app:
        async with session.begin() as transaction:
            kept = await place(transaction, "bell")
        async with session() as transaction:
            lost = await place(transaction, "clapper")
            await transaction.rollback()
        await app.wake()  # after the commit; without it a worker finds the job within a second
        await kept
        print(f"the order that was kept: its receipt is {kept.state}")
        try:
            await app.job(lost.id)
        except JobGone:
            print("the order that was rolled back: nobody ever asked for a receipt")
    async with session() as transaction:
        orders = await transaction.scalar(select(func.count(Order.id)))
        receipts = await transaction.scalar(select(func.count(Receipt.order_id)))
        print(f"orders: {orders}, receipts: {receipts}")
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
