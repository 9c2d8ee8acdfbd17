"""Whether the Hugging Face hub can be reached: one try, instead of the libraries' retries."""

from __future__ import annotations

import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds within which a connection must come about."""

CACHE_ONLY = (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE"))
"""Modules, and the names in them that make the hub's libraries use nothing but their caches."""


@contextmanager
def one_try() -> Iterator[str]:
    """Let the hub's libraries use their caches alone inside, if the hub cannot be reached; else they would retry for
    most of a minute.

    Gives the reason in a few words, which is empty where the hub can be reached or HF_HUB_OFFLINE is set anyway.
    """
    reason = "" if is_offline() else unreachable()
    if not reason:
        yield ""
        return
    with suppress(ImportError):
        import_module(CACHE_ONLY[0][0])  # its package alone does not import it
    modules = [(sys.modules[module], name) for module, name in CACHE_ONLY if module in sys.modules]
    before = [getattr(module, name, False) for module, name in modules]
    for module, name in modules:
        setattr(module, name, True)
    try:
        yield reason
    finally:
        for (module, name), value in zip(modules, before, strict=True):
            setattr(module, name, value)


def unreachable() -> str:
    """Why there is no connection to the hub, or to the proxy before it, in a few words; empty where there is one."""
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host = hub.hostname or "huggingface.co"
    proxies = {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()
    door = urlsplit(proxies.get(hub.scheme) or proxies.get("all") or "")
    asked, port = (door.hostname, door.port) if door.hostname else (host, hub.port)
    try:
        socket.create_connection((asked, port or (80 if hub.scheme == "http" else 443)), TIMEOUT).close()
    except OSError as error:
        through = f" through the proxy {asked}" if door.hostname else ""
        return f"{host} cannot be reached{through}: {error.strerror or error}"
    return ""


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network, read as huggingface_hub reads it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
