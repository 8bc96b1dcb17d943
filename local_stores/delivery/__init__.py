"""Delivery to a region's operators over SFTP: parts and notices up, keys, notices, receipts and evidence down.

`local_stores.delivery.sftp` works on a `paramiko.SFTPClient` that the caller supplies: Airflow's SFTPHook gives one in
DAGs, `connect` gives one everywhere else.
"""
