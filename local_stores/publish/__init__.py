"""The recipient's published files: a result table becomes Parquet, CSV, XLSX and a plain HTML page, once per edition.

The path of the data: `build` (opened numbers -> table) -> `history` (earlier published months) -> `derive` (year to
date, comparisons, footing) -> `view` (formatted cells) -> `write_*` -> `editions.publish` (atomic, refuses other bytes).
Import from the modules; this package imports nothing by itself, so that reading a DAG file stays cheap.
"""
