"""Django settings of `trigger-ddp demo`; also for a `python -m django shell` beside it.

TRIGGER_DDP_DEMO names the directory of the running demo's PostgreSQL socket, as its page shows it.
"""

import os

from django.core.exceptions import ImproperlyConfigured

if "TRIGGER_DDP_DEMO" not in os.environ:
    raise ImproperlyConfigured(
        "TRIGGER_DDP_DEMO is not set: it names the socket directory that `trigger-ddp demo` prints."
    )

SECRET_KEY = "the demo signs nothing"  # noqa: S105
DEBUG = False
USE_TZ = True
INSTALLED_APPS = [
    "trigger_ddp",
    "trigger_ddp.demo.bookstore",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["TRIGGER_DDP_DEMO"],
        "PORT": "5432",
        "NAME": "bookstore",
        "USER": "postgres",
        "CONN_MAX_AGE": None,
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
