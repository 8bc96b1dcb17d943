"""The data owner's and the recipient's side of Comity: stores, snapshots, validation, filing, receiving, publishing.

Folders tell the path of the data: stores, snapshot, validation, delivery, receive, publish. The Airflow provider is
one caller of `local_stores.filing` among others and the only package here that imports Airflow.
"""

__version__ = "0.1.0"
