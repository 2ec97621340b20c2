"""The loads of real programs, by name."""

from __future__ import annotations

from typing import Final

from npuops.errors import OptionError, nearest
from npuops.schedlab.program_load import ProgramLoad
from npuops.schedlab.program_memcached import MEMCACHED
from npuops.schedlab.program_nginx import NGINX
from npuops.schedlab.program_redis import REDIS
from npuops.schedlab.program_server import SERVER
from npuops.schedlab.program_wakeups import CYCLICTEST, MESSENGERS

PROGRAMS: Final = {load.name: load for load in (REDIS, NGINX, CYCLICTEST, MESSENGERS, SERVER, MEMCACHED)}


def program_named(name: str) -> ProgramLoad:
    """A load of real programs.

    Raises:
        OptionError: none has this name.
    """
    try:
        return PROGRAMS[name]
    except KeyError:
        raise OptionError(f"no load of real programs is called {name!r}", advice=nearest(name, PROGRAMS)) from None
