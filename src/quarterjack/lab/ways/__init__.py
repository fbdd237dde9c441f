"""The ways: how Python programs do something every T seconds, each as one small function.

This package needs the standard library alone and is loaded by path as well as by
name, because each way runs in a process of its own that imports nothing else: what
a `time.sleep` loop takes must not be measured with quarterjack around it. So its
modules import each other relatively, and what a way needs beyond the standard
library is imported inside its function.

A way is a function of a `Case`, registered by `way`. It sets itself up, calls
`Case.go`, which returns when the first tick is at hand, and then goes on for ever:
the process is ended from outside. A new one is such a function in one of the
modules that `_catalog.MODULES` names."""

from __future__ import annotations
