"""The errors of datahub, where callers look for them: ``from datahub.errors import NotInStore``."""

from __future__ import annotations

from datahub.core.errors import *  # noqa: F403
from datahub.core.errors import __all__ as __all__
