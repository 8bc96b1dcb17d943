"""All DAGs of this site, made from its imported releases. COMITY_SITE names the site's `site.toml`.

`ReleaseBundle` shows this file to Airflow; `local_stores/airflow_provider/factory.py` says which DAGs there are.
"""

from local_stores.airflow_provider.factory import build_dags

globals().update(build_dags(__file__))
