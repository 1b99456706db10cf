"""The Django project of the suite's reference application, see app/ddp.py for what it offers."""

import json
import os

SECRET_KEY = "tests only"
DEBUG = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "trigger_ddp",
    "trigger_ddp.accounts",
    "tests.conformance.app",
]
PASSWORD_HASHERS = ["tests.conformance.app.hashers.QuickHasher"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("TDDP_TEST_DB", "not_set_by_the_tests"),
        "HOST": os.environ.get("TDDP_TEST_HOST", "/nonexistent"),
        "PORT": os.environ.get("TDDP_TEST_PORT", "1"),
        "USER": "postgres",
        "CONN_MAX_AGE": None,
    },
}

# A server process under test gets its DDP_* settings from the environment.
for _name, _value in os.environ.items():
    if _name.startswith("DDP_"):
        globals()[_name] = json.loads(_value)
