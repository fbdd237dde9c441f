"""Not all at once: strategies, and how they compose.

A `Flow` is a set of strategies that every job passes on its way to start:
gates that admit (`Gate`), an order among those who wait (`Order`), wraps around
the attempt (`Wrap`), and stages around it all. `quarterjack.flow.dispatcher`
says how jobs wait, `quarterjack.flow.flow` in which order strategies act."""

from __future__ import annotations
