"""`make bench`: how fast, beside others, on the same traffic. Ratios within one run; see docs/performance.md."""
