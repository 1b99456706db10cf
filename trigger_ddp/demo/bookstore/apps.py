from django.apps import AppConfig


class BookstoreConfig(AppConfig):
    name = "trigger_ddp.demo.bookstore"
    label = "bookstore"
    default_auto_field = "django.db.models.BigAutoField"
