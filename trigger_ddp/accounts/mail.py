"""Mails with links, by Django's mail and templates.

A project's own ``templates/trigger_ddp/accounts/<purpose>_subject.txt``, ``….txt`` and ``….html`` are used
before ours, which has no HTML. Their context is ``user``, ``url``, ``token`` and ``site``.
"""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlsplit

from django.core.mail import EmailMultiAlternatives
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string

from trigger_ddp.accounts.models import MailToken
from trigger_ddp.accounts.signals import forgot_password
from trigger_ddp.accounts.tokens import issue_for_mail, mail_token_expires
from trigger_ddp.conf import settings

#: The client's routes of Meteor's accounts packages, and our templates' names.
_ROUTES = {
    MailToken.Purpose.RESET: ("reset-password", "reset_password"),
    MailToken.Purpose.ENROLL: ("enroll-account", "enroll_account"),
    MailToken.Purpose.VERIFY: ("verify-email", "verify_email"),
}


def send_link(user: Any, purpose: MailToken.Purpose, address: str, request: Any = None) -> None:
    """Mail a link with a new token.

    Args:
        user: whose it is.
        purpose: what it is for.
        address: where it goes.
        request: for the signal.
    """
    token, row = issue_for_mail(user, purpose, address)
    if purpose == MailToken.Purpose.RESET:
        answers: list[tuple[Any, Any]] = forgot_password.send(
            sender="trigger_ddp.accounts", request=request, user=user, token=token,
            expiry_date=mail_token_expires(row),
        )  # fmt: skip
        if any(answer is True for _, answer in answers):
            return
    route, template = _ROUTES[purpose]
    root = settings().root_url
    context = {
        "user": user,
        "token": token,
        "url": f"{root.rstrip('/')}/#/{route}/{token}",
        "site": urlsplit(root).netloc or root,
    }
    path = f"trigger_ddp/accounts/{template}"
    subject = " ".join(render_to_string(f"{path}_subject.txt", context).split())
    message = EmailMultiAlternatives(subject, render_to_string(f"{path}.txt", context), to=[address])
    with contextlib.suppress(TemplateDoesNotExist):  # ours are of text alone
        message.attach_alternative(render_to_string(f"{path}.html", context), "text/html")
    message.send()
