"""Types that are read from JSON, looked at by msgspec when their module is imported.

msgspec (0.22) looks at a type when it first reads one, and a thread that reads another meanwhile crashes the process: a
server did, of whose first requests two were for what it had kept of origins.
"""

from __future__ import annotations

import msgspec


def learn(*kinds: type) -> None:
    """To be called where the module of the types ends; what they hold is looked at too."""
    for kind in kinds:
        msgspec.json.Decoder(kind)
