"""torchvision's models by name, with published weights or a file's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision import models

from datahub.acquire.weights import check_name, fetch_weights
from datahub.core.errors import BadArgument
from datahub.core.events import Listener, Note, ignore
from datahub.core.settings import Settings
from datahub.train import checkpoint


@dataclass(frozen=True)
class Network:
    module: nn.Module
    evaluating: Callable[[torch.Tensor], torch.Tensor] | None
    """What the weights' publisher does to an image before evaluating; None where nothing is known."""


def build(name: str, classes: int, weights: str | None, settings: Settings, listener: Listener = ignore) -> Network:
    """The model ``name`` for ``classes`` classes.

    ``weights``: a name torchvision knows for it (``IMAGENET1K_V1``, ``DEFAULT``), a URL, or a file; names and URLs are
    fetched and verified by the digest in the file name, and so is a file whose name ends in one. A head of another
    number of classes stays untrained, and the listener is told. Raises `BadArgument`, and what `fetch_weights` raises.
    """
    module = _untrained(name, classes)
    if weights is None:
        return Network(module, None)
    evaluating = None
    if (path := Path(weights)).suffix and "://" not in weights:
        check_name(path)
        found = path
    else:
        url, evaluating = (weights, None) if "://" in weights else _published(name, weights)
        found = fetch_weights(url, settings, listener=listener).path
    _load(module, read(found), found, name, listener)
    return Network(module, evaluating)


def _untrained(name: str, classes: int) -> nn.Module:
    known = models.list_models(module=models)
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision.models.list_models()"
        raise BadArgument("model", name, "is not an image classifier of torchvision.models", hint)
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    module: nn.Module = models.get_model(name, num_classes=classes, **options)
    return module


def _published(model: str, name: str) -> tuple[str, Callable[[torch.Tensor], torch.Tensor]]:
    """(URL, transform) of torchvision's own weights."""
    try:
        known = models.get_model_weights(model)
        found = known[name.rpartition(".")[2]]
    except (KeyError, ValueError) as error:
        names = ", ".join(known.__members__)
        raise BadArgument("weights", name, f"{model} has no such weights", f"known: {names}, or a file") from error
    return found.url, found.transforms()


def read(path: Path) -> dict[str, torch.Tensor]:
    """A file's tensors by name: a state dict, or a checkpoint of ours. Runs no code of the file's."""
    try:
        found = checkpoint.read(path)
    except ValueError as error:
        raise BadArgument("weights", str(path), "is not a file of tensors alone", "save a state_dict()") from error
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found = found["model"]
    if not isinstance(found, dict) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise BadArgument("weights", str(path), "holds no state dict", "save a state_dict()")
    return found


def restore(module: nn.Module, path: Path, name: str) -> None:
    """Load all that a run of this very model kept. Raises `BadArgument` for another, or one of other classes."""
    own, found = module.state_dict(), read(path)
    odd = (own.keys() ^ found.keys()) | {key for key in own.keys() & found.keys() if own[key].shape != found[key].shape}
    if odd:
        reason = f"is not of a {name} for these classes: {min(odd)} does not fit"
        raise BadArgument("dir", str(path), reason, "name the dataset and the --model that it was trained with")
    module.load_state_dict(found)


def _load(module: nn.Module, found: dict[str, torch.Tensor], path: Path, name: str, listener: Listener) -> None:
    """Load what fits; only the head, the last layer, may differ in its shape."""
    own = module.state_dict()
    head = _head(module)
    other = {key for key in own if key in found and found[key].shape != own[key].shape}
    missing = own.keys() - found.keys()
    aside = {key for key in found if key.startswith(("AuxLogits.", "aux1.", "aux2."))}
    strange = found.keys() - own.keys() - aside
    if missing or strange or any(not key.startswith(head) for key in other):
        odd = sorted(missing | strange | other)[0]
        raise BadArgument("weights", str(path), f"are not those of a {name}: {odd} does not fit", "name its model")
    module.load_state_dict({key: own[key] if key in other else found[key] for key in own})
    if other:
        classes = found[sorted(other)[-1]].shape[0]
        listener(Note("weights", f"they are for {classes} classes: the head starts untrained", warning=True))


def _head(module: nn.Module) -> str:
    """Name of the last layer that has parameters."""
    names: list[str] = [name for name, each in module.named_modules() if list(each.parameters(recurse=False))]
    return names[-1]
