"""People known by their address, with a UUID for a key, and with what nobody may see."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class Person(AbstractBaseUser):
    id: Any = models.UUIDField(primary_key=True, default=uuid.uuid4)
    mail: Any = models.EmailField(unique=True)
    api_key: Any = models.CharField(max_length=40, default="the api key")
    salary: Any = models.IntegerField(default=12345)

    objects = BaseUserManager()  # type: ignore[var-annotated]

    USERNAME_FIELD = "mail"
    EMAIL_FIELD = "mail"


def new_number() -> str:
    return uuid.uuid4().hex[:10]


class Member(AbstractBaseUser):
    """Known by a nickname, with no address, nor anything else."""

    number: Any = models.CharField(max_length=10, primary_key=True, default=new_number)
    nickname: Any = models.CharField(max_length=20, unique=True)

    objects = BaseUserManager()  # type: ignore[var-annotated]

    USERNAME_FIELD = "nickname"
