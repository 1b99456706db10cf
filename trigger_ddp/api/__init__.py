"""DECLARE: collections, publications and methods, as an application's ``ddp.py`` states them.

from trigger_ddp.api import API, Collection, Publication

@API.register
class Books(Collection):
    model = Book
"""

from trigger_ddp.alea import meteor_random_id
from trigger_ddp.api.collection import Collection
from trigger_ddp.api.context import this
from trigger_ddp.api.endpoints import APIMixin, api_endpoint
from trigger_ddp.api.fields import AleaIdField, AleaIdMixin
from trigger_ddp.api.handle import Handle
from trigger_ddp.api.ids import get_meteor_id, get_meteor_ids, get_object, get_object_id, get_object_ids
from trigger_ddp.api.publication import Publication
from trigger_ddp.api.registry import API
from trigger_ddp.errors import AlreadyRegistered, MeteorError

__all__ = [
    "API",
    "APIMixin",
    "AleaIdField",
    "AleaIdMixin",
    "AlreadyRegistered",
    "Collection",
    "Handle",
    "MeteorError",
    "Publication",
    "api_endpoint",
    "get_meteor_id",
    "get_meteor_ids",
    "get_object",
    "get_object_id",
    "get_object_ids",
    "meteor_random_id",
    "this",
]
