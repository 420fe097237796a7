"""The OpenAPI document of the server, written from one table."""

from __future__ import annotations

from typing import Any

import msgspec

from datahub.core.refs import NAME, VARIANT, VERSION
from datahub.wire.messages import (
    Command,
    Datasets,
    Evicted,
    Failure,
    Job,
    JobAsked,
    Jobs,
    Service,
    Status,
    Verdict,
    Warming,
)
from datahub.wire.paths import (
    API,
    BLOBS,
    BLOCKS,
    CACHE,
    DATASETS,
    EVICT,
    FILES,
    HEALTH,
    JOBS,
    LEASE,
    METRICS,
    OF,
    OPENAPI,
    PIN,
    READY,
    RECORD,
    UNPIN,
    WARM,
)

JSON = "application/json"
SHA256 = {"name": "sha256", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
RANGE = {"name": "Range", "in": "header", "schema": {"type": "string"}, "description": "A range of bytes, or several."}
VARIANT_OF = {
    "name": OF,
    "in": "query",
    "schema": {"type": "string"},
    "description": "NAME@VERSION/VARIANT that it is of, for a server that does not know the digest yet.",
}
RANGED = {
    "206": {"description": "The bytes of the range; of several that ascend, as multipart/byteranges."},
    "304": {"description": "It is what the client has."},
    "412": {"description": "It is not what the client wants."},
    "416": {"description": "The range begins after its end."},
}
VARIANT_PATH = DATASETS + "/{name}/{version}/{variant}"


def _part(name: str, pattern: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{pattern}$"}}


REF = [_part("name", NAME.pattern), _part("version", VERSION.pattern), _part("variant", VARIANT.pattern)]
FILE = [_part("dataset", NAME.pattern), _part("file", "[^/]+")]
JOB = _part("job", "[A-Za-z0-9._-]{1,64}")
KEY = _part("member", r"[a-z][a-z0-9_]*-[0-9]{9}\.[a-z0-9]+")


def _operation(what: str, parameters: list[Any], responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": what, "parameters": parameters, "responses": responses}


def _post(what: str, asked: Any, answer: Any, errors: dict[str, Any], *, status: int = 200) -> dict[str, Any]:
    done = {str(status): {"description": what, "content": {JSON: {"schema": answer}}}, **errors}
    body = {"required": True, "content": {JSON: {"schema": asked}}}
    return {"post": _operation(what, [], done) | {"requestBody": body}}


def document(version: str) -> bytes:
    kinds = [Service, Datasets, Failure, Jobs, JobAsked, Job, Status, Command, Verdict, Warming, Evicted]
    schemas, parts = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    service, datasets, failure, jobs, asked, job, status, command, verdict, warming, evicted = schemas
    errors = {"default": {"description": "An error.", "content": {JSON: {"schema": failure}}}}

    def get(what: str, kind: str, schema: Any, *parameters: Any, ranged: bool = False) -> dict[str, Any]:
        body = {"description": what, "content": {kind: {"schema": schema}}}
        more = RANGED if ranged else {}
        operation: dict[str, Any] = {"summary": what, "responses": {"200": body, **more, **errors}}
        everything = [*parameters, *([RANGE] if ranged else [])]
        return {"get": operation | ({"parameters": everything} if everything else {})}

    lease = {"allOf": [command, {"required": ["job"], "properties": {"job": {"pattern": JOB["schema"]["pattern"]}}}]}
    binary, text = {"type": "string", "format": "binary"}, {"type": "string"}
    stream = "application/octet-stream"
    paths = {
        API: get("Who answers.", JSON, service),
        HEALTH: get("Whether it lives.", "text/plain", text),
        READY: get("Whether it takes requests.", "text/plain", text),
        METRICS: get("Numbers for Prometheus.", "text/plain", text),
        OPENAPI: get("This document.", JSON, {"type": "object"}),
        DATASETS: get("The variants there are.", JSON, datasets),
        DATASETS + "/{name}": get("Those of one dataset.", JSON, datasets, REF[0]),
        f"{VARIANT_PATH}/{RECORD}": get("A variant's record.", JSON, {"type": "object"}, *REF, ranged=True),
        f"{VARIANT_PATH}/{BLOCKS}": get("The digests of its blocks.", stream, binary, *REF, ranged=True),
        VARIANT_PATH + "/samples/{member}": get("A member of a sample.", "*/*", {}, *REF, KEY, ranged=True),
        VARIANT_PATH + "/{file}": get("A file of a variant.", "*/*", {}, *REF, FILE[1], ranged=True),
        FILES + "/{dataset}/{version}/{file}": get(
            "A published file of a version.", stream, binary, FILE[0], REF[1], FILE[1], ranged=True
        ),
        FILES + "/{dataset}/{file}": get("A published file.", stream, binary, *FILE, ranged=True),
        BLOBS + "/{sha256}": get("A file by its digest.", stream, binary, SHA256, VARIANT_OF, ranged=True),
        BLOBS + "/{sha256}/blocks": get("The digests of its blocks.", stream, binary, SHA256, ranged=True),
        CACHE: get("What the cache holds.", JSON, status),
        WARM: _post("Fetch a dataset before it is asked for.", command, warming, errors, status=202),
        PIN: _post("Never evict a dataset.", command, verdict, errors),
        UNPIN: _post("Let it be evicted again.", command, status, errors),
        LEASE: _post("Keep a dataset for a job.", lease, verdict, errors),
        EVICT: _post("Let go of its blocks now.", command, evicted, errors),
        JOBS: get("The jobs that live.", JSON, jobs) | _post("A job says what it reads.", asked, job, errors),
        JOBS + "/{job}": {"delete": _operation("A job ended.", [JOB], {"204": {"description": "Done."}, **errors})},
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "datahub cache server", "version": version},
            "paths": paths,
            "components": {
                "schemas": parts,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}, {}],
        }
    )
