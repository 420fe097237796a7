"""Compiles the Triton kernels for an H100 (sm_90), without one; prints the name of each that its assembler took."""

from __future__ import annotations

import inspect

from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from datahub.tensor.fused import apply, kernels

TARGET = GPUTarget("cuda", 90, 32)
NUMBERS = dict.fromkeys(("shown_rows", "shown_columns", "shown", "taps", "fours"), "i32")
MADE = {"first": "*i32", "count": "*i32", "bits": "*i32", "weights": "*i32"}


def check(name: str, signature: dict[str, str], constants: dict[str, object], warps: int = 4) -> None:
    if "constexprs" in inspect.signature(ASTSource).parameters:
        signature = signature | dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=getattr(kernels, name), signature=signature, constexprs=constants)
    else:  # Triton 3.2, of torch 2.6
        source = ASTSource(fn=getattr(kernels, name), signature=signature, constants=constants)
    assert compile(source, target=TARGET, options={"num_warps": warps}).asm["cubin"]
    print(name)


def main() -> None:
    check(
        "tables",
        {"params": "*i64", "boxes": "*fp64", **MADE, **NUMBERS},
        {"FIELDS": apply.FIELDS, "BLOCK": apply.BLOCK},
    )
    tile = {"TALL": apply.TALL, "WIDE": apply.WIDE, "DOT": True, "FIELDS": apply.FIELDS}
    numbers = {name: kind for name, kind in NUMBERS.items() if name != "taps"} | {"tiles": "i32"}
    for interleaved, looked_up, out, step in ((True, True, "*bf16", 1), (False, False, "*u8", 0)):
        check(
            "resample",
            {"params": "*i64", **MADE, "table": out, "out": out, **numbers},
            {**tile, "CHANNELS": 3, "INTERLEAVED": interleaved, "LOOKED_UP": looked_up, "PIXEL": step},
            warps=1,
        )
    sizes = dict.fromkeys(("height", "width", "tall", "wide", "blocks"), "i32")
    check(
        "moved",
        {"pixels": "*u8", "given": "*i64", "fill": "*i64", "table": "*bf16", "out": "*bf16", **sizes},
        {"CHANNELS": 3, "INTERLEAVED": True, "LOOKED_UP": True, "MODE": 2, "BLOCK": 1024},
    )


if __name__ == "__main__":
    main()
