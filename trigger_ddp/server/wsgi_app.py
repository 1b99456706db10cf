"""The Django project's WSGI application, as ``runserver`` finds it."""

from __future__ import annotations

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.servers.basehttp import get_internal_wsgi_application

from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server.wsgi_response import WSGIApplication


def is_named() -> bool:
    """Whether the project's settings name an application, as those that ``startproject`` makes do."""
    return settings.WSGI_APPLICATION is not None


def load() -> WSGIApplication:
    """What ``WSGI_APPLICATION`` names, or else Django's own handler; in development with static files.

    Raises:
        ConfigurationError: it can't be imported.
    """
    try:
        application: WSGIApplication = get_internal_wsgi_application()
    except ImproperlyConfigured as error:
        # Django's text does not say what was missing.
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigurationError(
            f"WSGI_APPLICATION {settings.WSGI_APPLICATION!r} can't be imported: {reason}; "
            "mend it, or serve without the Django project by --no-wsgi"
        ) from error
    if settings.DEBUG and apps.is_installed("django.contrib.staticfiles"):
        from django.contrib.staticfiles.handlers import StaticFilesHandler

        return StaticFilesHandler(application)  # type: ignore[arg-type]  # any application does
    return application
