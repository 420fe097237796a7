"""Compiles the Triton kernels for cards that are not here, and says what their assembler made of them.

    python tests/tensor/compile_kernels.py [sm ...]

A line a kernel: its name, registers a thread, and bytes that did not fit into them; then, of the blocks between two
branches that hold dot products, how many instructions there are and how many of those are dot products. Two belong to
every weighted sum of four pixels, so that instructions a value can be worked out; `docs/decisions.md` does.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from datahub.tensor.fused import apply, kernel_moved, kernel_resample, kernel_tables

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ALIGNED = 16
"""What Triton notices of pointers and of whole numbers: that they divide by it."""
PARAMS = {"params": "*i64", "spans": "*i32", "bits": "*i32"}
SIZES = dict.fromkeys(("shown_rows", "shown_columns", "shown", "record"), "i32")
RESAMPLED = ((True, 2, "*fp32", "*bf16"), (True, 1, "*fp16", "*fp16"), (False, 0, "*u8", "*u8"))
TILES = dict.fromkeys(("tall", "tiles"), "i32")


def check(
    kernel: Any, signature: dict[str, str], constants: dict[str, object], sm: int, aligned: set[str], **options: object
) -> None:
    given = set(aligned) | {name for name, kind in signature.items() if kind.startswith("*")}
    names = list(inspect.signature(kernel.fn).parameters)
    places = [names.index(name) for name in names if name in given]
    if "constexprs" in inspect.signature(ASTSource).parameters:
        signature = signature | dict.fromkeys(constants, "constexpr")
        hints = {(place,): [["tt.divisibility", ALIGNED]] for place in places}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=hints)
    else:  # Triton 3.2, of torch 2.6
        from triton.backends.compiler import AttrsDescriptor

        told = {"arg_properties": {"tt.divisibility": places}, "cls": "AttrsDescriptor"}
        source = ASTSource(fn=kernel, signature=signature, constants=constants, attrs=AttrsDescriptor.from_dict(told))
    made = compile(source, target=GPUTarget("cuda", sm, 32), options=options).asm["cubin"]
    print(f"{kernel.fn.__name__} sm_{sm}", *said_of(made))


def said_of(cubin: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        used = _told("cuobjdump", "-res-usage", file.name)
        found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", used))
        yield f"registers={found['REG']} spilled={int(found['STACK']) + int(found['LOCAL'])}"
        blocks = re.split(r"^\.L_x_\d+:|\bBRA\b", _told("nvdisasm", "-c", file.name), flags=re.MULTILINE)
    for block in blocks:
        names = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?\s*([A-Z][A-Z0-9]*)", block)
        if dots := names.count("IDP"):
            yield f"{len(names)}/{dots}"


def _told(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> None:
    for sm in map(int, sys.argv[1:] or ("80", "90")):
        constants: dict[str, object] = {"FIELDS": apply.FIELDS, "BLOCK": apply.BLOCK}
        both = {"shown_rows", "shown_columns"}
        check(kernel_tables.tables, {**PARAMS, "boxes": "*fp64", **SIZES}, constants, sm, both, enable_fp_fusion=False)
        for interleaved, kind, table, out in (
            (True, 2, "*fp32", "*bf16"),
            (True, 1, "*fp16", "*fp16"),
            (False, 0, "*u8", "*u8"),
        ):
            signature = {**PARAMS, "table": table, "out": out, **SIZES, **TILES}
            constants = {"FIELDS": apply.FIELDS, "CHANNELS": 3, "INTERLEAVED": interleaved, "LOOKUP": kind}
            constants |= {"WIDE": apply.WIDE, "ASM": True}
            check(kernel_resample.resample, signature, constants, sm, both, num_warps=1)
        sizes = dict.fromkeys(("height", "width", "tall", "wide", "blocks"), "i32")
        check(
            kernel_moved.moved,
            {"pixels": "*u8", "given": "*i64", "fill": "*i64", "table": "*bf16", "out": "*bf16", **sizes},
            {"CHANNELS": 3, "INTERLEAVED": True, "LOOKED_UP": True, "MODE": 2, "BLOCK": 1024}, sm, set(),
        )  # fmt: skip


if __name__ == "__main__":
    main()
