"""The drift laboratory: how late, how often and how evenly programs do something every T seconds.

- `ways`: the known ways to do it, each run in a process of its own, which imports nothing of quarterjack
- `own`, `process_app`, `celery_app`: those ways that are ours
- `account`: what was recorded, counted against the grid that was promised
- `verdict`: what was counted, in words
- `simulated`: a day made of the turns that were measured
- `picture`: lag over time and its distribution, as SVG; `png` turns that into PNG

The pure parts read no clock and no file; ``qj lab drift`` is the shell around them."""

from __future__ import annotations
