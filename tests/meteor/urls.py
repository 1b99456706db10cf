"""The urls of the tests' project with a bundle."""

from __future__ import annotations

import os

from django.urls import re_path

from trigger_ddp.meteor.views import MeteorView

urlpatterns = [re_path(r"^(?P<path>.*)$", MeteorView.as_view(json_path=os.environ["TDDP_TEST_BUNDLE"]))]
