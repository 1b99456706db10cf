"""The project of `benchmarks.soak`: the tests' own, with accounts."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "trigger_ddp.accounts"]
PASSWORD_HASHERS = ["tests.accounts.hashers.Quick"]
