"""The Django project of the tests; tests/conftest.py points its database at a clone per test.

A server started as its own process is told its database by TDDP_TEST_DB, _HOST and _PORT.
"""

import json
import os

SECRET_KEY = "tests only"
DEBUG = "TDDP_TEST_DEBUG" in os.environ
USE_TZ = True
ROOT_URLCONF = "tests.project.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.postgres",
    "trigger_ddp",
    "trigger_ddp.demo.bookstore",
    "tests.zoo",
    "tests.library",
    "tests.project",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("TDDP_TEST_DB", "not_set_by_the_tests"),
        "HOST": os.environ.get("TDDP_TEST_HOST", "/nonexistent"),
        "PORT": os.environ.get("TDDP_TEST_PORT", "1"),
        "USER": os.environ.get("TDDP_TEST_USER", "postgres"),
        "CONN_MAX_AGE": None,
        "OPTIONS": json.loads(os.environ.get("TDDP_TEST_OPTIONS", "{}")),
    },
}

DDP_API_ENDPOINT_DECORATORS = os.environ.get("TDDP_TEST_DECORATORS", "").split()

# A server process under test gets its DDP_* settings from the environment.
for _name, _value in os.environ.items():
    if _name.startswith("DDP_"):
        globals()[_name] = json.loads(_value)
