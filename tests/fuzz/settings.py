"""The Django project of the fuzzer, which has no database."""

SECRET_KEY = "fuzzing only"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.postgres",
    "trigger_ddp",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "/nonexistent"}}
