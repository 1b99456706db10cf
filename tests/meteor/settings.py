"""The tests' project with a bundle, which TDDP_TEST_BUNDLE names."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import INSTALLED_APPS

ROOT_URLCONF = "tests.meteor.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [*INSTALLED_APPS, "trigger_ddp.meteor"]
