"""A project with accounts. TDDP_USERS=custom or member gives it a user model of its own, unlike Django's."""

import json
import os

CUSTOM = {"custom": "people.Person", "member": "people.Member"}.get(os.environ.get("TDDP_USERS", ""))

SECRET_KEY = "tests only"
DEBUG = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    *(["tests.accounts.people"] if CUSTOM else []),
    "trigger_ddp",
    "trigger_ddp.accounts",
    "trigger_ddp.demo.bookstore",
    "tests.accounts.app",
]
if CUSTOM:
    AUTH_USER_MODEL = CUSTOM
PASSWORD_HASHERS = [
    "tests.accounts.hashers.Quick",
    "tests.accounts.hashers.QuickDjango",
]
if "TDDP_DJANGO_FIRST" in os.environ:
    PASSWORD_HASHERS.reverse()
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "tests.accounts.app.directory.Directory",
]
AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = os.environ.get("TDDP_MAIL", "/nonexistent")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("TDDP_TEST_DB", "not_set_by_the_tests"),
        "HOST": os.environ.get("TDDP_TEST_HOST", "/nonexistent"),
        "PORT": os.environ.get("TDDP_TEST_PORT", "1"),
        "USER": os.environ.get("TDDP_TEST_USER", "postgres"),
        "CONN_MAX_AGE": None,
    },
}
DDP_ROOT_URL = "https://books.example/app/"

# A server process under test gets its DDP_* settings from the environment.
for _name, _value in os.environ.items():
    if _name.startswith("DDP_"):
        globals()[_name] = json.loads(_value)
