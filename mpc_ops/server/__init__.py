"""An operator: its process, its API, its spool and its checks."""
