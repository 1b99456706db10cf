"""User models that are as different from Django's as they may be."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class Person(AbstractBaseUser):
    """Known by the mail address alone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    mail = models.EmailField(unique=True)
    api_key = models.CharField(max_length=40, default="the secret api key")
    friends: Any = models.ManyToManyField("self")
    is_active = models.BooleanField(default=True)  # type: ignore[assignment]

    USERNAME_FIELD = "mail"
    EMAIL_FIELD = "mail"
    objects = BaseUserManager()


def new_number() -> str:
    return uuid.uuid4().hex[:10]


class Member(AbstractBaseUser):
    """Has no mail address, nor anything else."""

    number = models.CharField(max_length=10, primary_key=True, default=new_number)
    nickname = models.CharField(max_length=20, unique=True)

    USERNAME_FIELD = "nickname"
    objects = BaseUserManager()
