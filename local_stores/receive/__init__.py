"""The recipient's side: talking to the group operators, opening and checking the result, keeping its own transfer log.

Import from the modules; this package imports nothing by itself, so that reading a DAG file stays cheap.
"""
