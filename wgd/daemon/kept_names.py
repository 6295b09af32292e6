"""The Names of the last policies as the daemon keeps them for its recorder, the next one, and the next daemon's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from wgd import __version__
from wgd.daemon.store import Store
from wgd.events.names_book import KEPT
from wgd.policy.names import Names

PREFIX = f"names-{__version__}-"
"""How their names in the store begin; `DIGEST-SINCE` follows. Another version may write Names in another way."""


class KeptNames:
    """Descriptors from which Names are read, with the time (ns of the epoch) since when they are in force."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[int, int]] = {}
        found = [(int(name.rpartition("-")[2]), name) for name in store.names(PREFIX)]
        for since, name in sorted(found):
            descriptor = store.take(name)
            if descriptor is not None:
                self._put(name.removeprefix(PREFIX).rpartition("-")[0], descriptor, since)

    def keep(self, names: Names) -> tuple[int, int]:
        """Make these the newest; return their descriptor and since when they are in force."""
        if names.digest not in self._kept or names.digest != self.newest:
            self._drop([names.digest] if names.digest in self._kept else [])
            self._put(names.digest, in_memory(f"wgd-names-{names.digest}", names.to_json()), time.time_ns())
            self._drop(tuple(self._kept)[:-KEPT])
        return self._kept[names.digest]

    @property
    def newest(self) -> str:
        """The digest of the newest."""
        return next(reversed(self._kept))

    def again(self, digest: str) -> tuple[int, int] | None:
        """Make some that are kept the newest, from now on; return what `keep` does, None where nothing changes."""
        if digest not in self._kept or digest == self.newest:
            return None
        kept, _ = self._kept[digest]
        descriptor = os.dup(kept)
        self._drop([digest])
        self._put(digest, descriptor, time.time_ns())
        return self._kept[digest]

    def all(self) -> Iterable[tuple[int, int]]:
        """Return descriptors and times, the newest last."""
        return tuple(self._kept.values())

    def close(self) -> None:
        """Close all; what the store has stays there."""
        for descriptor, _ in self._kept.values():
            os.close(descriptor)
        self._kept.clear()

    def _put(self, digest: str, descriptor: int, since: int) -> None:
        self._kept[digest] = descriptor, since
        self._store.put(_name(digest, since), descriptor)

    def _drop(self, digests: Iterable[str]) -> None:
        for digest in digests:
            descriptor, since = self._kept.pop(digest)
            os.close(descriptor)
            self._store.remove((_name(digest, since),))


def in_memory(name: str, data: bytes) -> int:
    """Return a descriptor behind which there is `data`, for the recorder to read."""
    descriptor = os.memfd_create(name)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


def _name(digest: str, since: int) -> str:
    return f"{PREFIX}{digest}-{since}"
