"""The Django project of the tests; tests/conftest.py points its database at a clone per test.

A server started as its own process is told its database by TDDP_TEST_DB, _HOST and _PORT.
"""

import json
import os

SECRET_KEY = "tests only"
DEBUG = False
USE_TZ = True
ROOT_URLCONF = "tests.project.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.postgres",
    "trigger_ddp",
    "trigger_ddp.accounts",
    "trigger_ddp.demo.bookstore",
    "tests.zoo",
    "tests.library",
    "tests.project",
]
PASSWORD_HASHERS = [
    "tests.accounts.hashers.Quick",
    "tests.accounts.hashers.QuickDjango",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
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
        try:
            globals()[_name] = json.loads(_value)
        except ValueError:
            globals()[_name] = _value

if "TDDP_TEST_MAILS" in os.environ:
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = os.environ["TDDP_TEST_MAILS"]

if "TDDP_TEST_VALIDATORS" in os.environ:
    AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]
