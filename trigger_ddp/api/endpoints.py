"""Methods that clients may call: the ``@api_endpoint`` decorator and the classes that carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar, overload

from django.utils.module_loading import import_string

from trigger_ddp import conf

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def api_endpoint(path_or_func: Function, decorate: bool = True) -> Function: ...
@overload
def api_endpoint(
    path_or_func: str | None = None, decorate: bool = True
) -> Callable[[Function], Function]: ...
def api_endpoint(path_or_func: Any = None, decorate: bool = True) -> Any:
    """Let clients call a function or method, which may be ``async``.

    Used as ``@api_endpoint``, ``@api_endpoint("path")`` or ``@api_endpoint(decorate=False)``.

    Args:
        path_or_func: the function, or its path; by default the path is the function's name. The name
            clients call is the path after the ``api_path_prefix`` of the class.
        decorate: whether the decorators that ``DDP_API_ENDPOINT_DECORATORS`` names are applied.
    """

    def mark(function: Any) -> Any:
        if isinstance(function, staticmethod | classmethod):
            return type(function)(mark(function.__func__))
        path = path_or_func if isinstance(path_or_func, str) else function.__name__
        if decorate:
            for dotted_path in conf.settings().api_endpoint_decorators:
                function = import_string(dotted_path)()(function)
        # After decorating: a decorator that does not use functools.wraps would lose it.
        function.api_path = path
        return function

    return mark(path_or_func) if callable(path_or_func) else mark


class APIMixin:
    """A class whose ``@api_endpoint`` methods clients may call, once it is registered with `API.register`.

    Attributes:
        name: what the class is known by; by default the class's name.
        api_path_prefix: stands before the path of every endpoint: "/" by default, "" for bare names.
        api_path_prefix_format: makes ``api_path_prefix`` where that is not set, such as "/{name}/".
        api_providers: further instances whose endpoints belong to this one.
    """

    name: ClassVar[str] = "APIMixin"
    api_path_prefix: ClassVar[str] = "/"
    api_path_prefix_format: ClassVar[str | None] = None
    api_providers: Sequence[APIMixin] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__dict__.get("name"):
            cls.name = cls.default_name()
        if cls.__dict__.get("api_path_prefix") is None and cls.api_path_prefix_format is not None:
            cls.api_path_prefix = cls.api_path_prefix_format.format(name=cls.name)

    @classmethod
    def default_name(cls) -> str:
        """The name of a class that declares none."""
        return cls.__name__

    def api_path_map(self) -> dict[str, Callable[..., Any]]:
        """The method names clients call, each with the bound function that answers."""
        return dict(self.iter_endpoints())

    def iter_endpoints(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Every endpoint of this object and its providers: (method name, bound function)."""
        for attribute in dir(type(self)):
            # Looked up on the class first: on the object it would run every property.
            path = getattr(getattr(type(self), attribute, None), "api_path", None)
            if isinstance(path, str):
                yield self.api_path_prefix + path, getattr(self, attribute)
        for provider in self.api_providers:
            yield from provider.iter_endpoints()

    def ready(self) -> None:
        """Called once all apps' declarations are registered."""
