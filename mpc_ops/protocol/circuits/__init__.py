"""AND, comparisons and counts; products and counters; conversions between both kinds of shares; division."""
