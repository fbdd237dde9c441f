"""The benchmark harness: environments, machine facts, runs and reports.

Nothing here measures anything. The scripts beside this package do, each in a
process of its own; the harness starts them in turn and lays their answers side by side."""
