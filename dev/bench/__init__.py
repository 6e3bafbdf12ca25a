"""The comparisons of ``make bench``: each module with a ``run(report)`` times ours beside theirs."""
