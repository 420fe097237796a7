"""The one error tree.

Every leaf carries its facts as attributes, says in one line what is wrong and what to do next, knows whether trying
again can help (``retryable``), and which exit code the command line gives it.

    DatahubError                    1
    ├── UsageError                  2
    │   ├── BadReference, BadArgument, NotYetSupported
    │   ├── UnknownDataset, UnknownVersion, UnknownVariant, UnknownSplit
    │   ├── ManifestInvalid
    │   └── StateMismatch
    ├── VerificationError           3
    │   ├── DigestMismatch, SizeMismatch, NotTheFile
    │   ├── LayoutError, UnsafeArchive, UnsafePickle
    │   ├── RecordInvalid, StoreDamaged (ShardCut)
    │   └── DamagedImage, DamagedSample
    ├── OriginError                 4
    │   ├── HttpError, ConnectionLost, OriginStalled, OriginChanged
    │   ├── MissingAtOrigin, AllMirrorsFailed
    │   ├── LockTimeout, ExecutorUnreachable
    │   └── BeingFetched, FetchFailed
    ├── DiskError                   5
    │   └── DiskFull, NotWritable, NotReadable
    ├── ActionNeeded                6
    │   └── ManualFiles, ConsentNeeded, AlreadyPacked, MissingTool, MissingExtra,
    │       MissingLibrary, DeviceOutOfMemory, TokenRefused, LeaseRefused
    ├── NotInStore, NotServed,
    │   Offline                     7
    └── WorkerDied                  4, or 1 where a worker crashed
"""

from __future__ import annotations

from datahub.core.errors.absent import (
    NotInStore,
    NotServed,
    Offline,
)
from datahub.core.errors.action import (
    ActionNeeded,
    AlreadyPacked,
    ConsentNeeded,
    DeviceOutOfMemory,
    LeaseRefused,
    ManualFiles,
    MissingExtra,
    MissingLibrary,
    MissingTool,
    TokenRefused,
)
from datahub.core.errors.base import (
    DatahubError,
    Problem,
)
from datahub.core.errors.disk import (
    SCARCE,
    DiskError,
    DiskFull,
    NotReadable,
    NotWritable,
    from_oserror,
)
from datahub.core.errors.origin import (
    AllMirrorsFailed,
    BeingFetched,
    ConnectionLost,
    ExecutorUnreachable,
    FetchFailed,
    HttpError,
    LockTimeout,
    MissingAtOrigin,
    OriginChanged,
    OriginError,
    OriginStalled,
)
from datahub.core.errors.usage import (
    BadArgument,
    BadReference,
    ManifestInvalid,
    NotYetSupported,
    StateMismatch,
    UnknownDataset,
    UnknownSplit,
    UnknownVariant,
    UnknownVersion,
    UsageError,
)
from datahub.core.errors.verification import (
    DamagedImage,
    DamagedSample,
    DigestMismatch,
    LayoutError,
    NotTheFile,
    RecordInvalid,
    ShardCut,
    SizeMismatch,
    StoreDamaged,
    UnsafeArchive,
    UnsafePickle,
    VerificationError,
)
from datahub.core.errors.workers import (
    CRASHES,
    WorkerDied,
)

__all__ = [
    "CRASHES",
    "SCARCE",
    "ActionNeeded",
    "AllMirrorsFailed",
    "AlreadyPacked",
    "BadArgument",
    "BadReference",
    "BeingFetched",
    "ConnectionLost",
    "ConsentNeeded",
    "DamagedImage",
    "DamagedSample",
    "DatahubError",
    "DeviceOutOfMemory",
    "DigestMismatch",
    "DiskError",
    "DiskFull",
    "ExecutorUnreachable",
    "FetchFailed",
    "HttpError",
    "LayoutError",
    "LeaseRefused",
    "LockTimeout",
    "ManifestInvalid",
    "ManualFiles",
    "MissingAtOrigin",
    "MissingExtra",
    "MissingLibrary",
    "MissingTool",
    "NotInStore",
    "NotReadable",
    "NotServed",
    "NotTheFile",
    "NotWritable",
    "NotYetSupported",
    "Offline",
    "OriginChanged",
    "OriginError",
    "OriginStalled",
    "Problem",
    "RecordInvalid",
    "ShardCut",
    "SizeMismatch",
    "StateMismatch",
    "StoreDamaged",
    "TokenRefused",
    "UnknownDataset",
    "UnknownSplit",
    "UnknownVariant",
    "UnknownVersion",
    "UnsafeArchive",
    "UnsafePickle",
    "UsageError",
    "VerificationError",
    "WorkerDied",
    "from_oserror",
]
