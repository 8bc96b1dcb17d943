"""Runs when Python starts with this folder on PYTHONPATH: puts stand-ins in the place of the modules that do the work."""

import os

if os.environ.get("COMITY_FAKE_FOLDER"):
    from tests.support.fake_steps import install

    install()
