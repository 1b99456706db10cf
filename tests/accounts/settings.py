"""A project whose user model is one of tests.accounts.custom: that named by TDDP_TEST_USER."""

import os

from tests.project.settings import *  # noqa: F403

AUTH_USER_MODEL = "custom." + os.environ["TDDP_TEST_USER"]
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "trigger_ddp",
    "trigger_ddp.accounts",
    "tests.accounts.custom",
]
