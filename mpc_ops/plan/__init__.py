"""The calculation plan: typed nodes, lanes, border rules, checks and the planned-transfer statement. No SQL, no I/O."""
