"""Relational operators on shared tables: group-by, distinct, top-k, running sums, joins, set intersection."""
