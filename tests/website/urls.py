"""The website's pages."""

from django.contrib import admin
from django.urls import path

from tests.website import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.hello),
    path("async/", views.hello_async),
    path("processes/", views.processes),
    path("digest/", views.digest),
    path("upload/", views.upload),
    path("refuse/", views.refuse),
    path("authors/", views.authors),
    path("backend/", views.backend),
    path("file/", views.file),
    path("stream/", views.stream),
    path("go-on/", views.go_on),
    path("closed/", views.closed),
]
