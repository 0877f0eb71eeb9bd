"""Who calls with a grant instead of a token: nobody, unless the grant is one of this database's, and counts.

What it is good for is looked at by the service, in the store. This is asked before anything of what is sent is taken
in.
"""

from __future__ import annotations

from fileserver.auth import grant_in, granted, know_holder
from fileserver.calls import Metadata
from fileserver.grants import Keys


class Holders:
    """Asks the calls that come with a grant whether it counts.

    Args:
        keys: tell grants from other text.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def check(self, method: str, metadata: Metadata) -> None:
        """Let the holder of a grant through, known by its transfer from here on, and everybody who has none.

        Raises:
            CallerDenied: it is none, or its hours are over.
        """
        if granted(method, metadata):
            know_holder(self._keys.known(grant_in(metadata) or "").transfer)
