"""The urls of the tests' project with a bundle, below TDDP_TEST_ROUTE."""

from __future__ import annotations

import os

from django.urls import re_path

from trigger_ddp.meteor.views import MeteorView

route = os.environ.get("TDDP_TEST_ROUTE", "")
view = MeteorView.as_view(json_path=os.environ["TDDP_TEST_BUNDLE"])
urlpatterns = [re_path(rf"^{route}(?P<path>.*)$", view)]
