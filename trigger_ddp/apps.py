from django.apps import AppConfig


class TriggerDDPConfig(AppConfig):
    name = "trigger_ddp"
    label = "trigger_ddp"
