"""An authentication backend beside Django's own."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend


class Directory(BaseBackend):
    """Everybody has a second password there."""

    def authenticate(self, request: Any, username: Any = None, password: Any = None, **kwargs: Any) -> Any:
        users: Any = get_user_model()._default_manager
        if password != "known to the directory":
            return None
        return users.filter(**{get_user_model().USERNAME_FIELD: username}).first()
