"""Liger's Triton kernels for CUDA (``pip install finetune[liger]``): the loss, and parts of the layers.

The loss kernel is used where it is installed, after :mod:`finetune.training.loss_check` has found it right; the layers
are changed only where the configuration asks for it, since Liger's norms deviate under compilation.
"""

import importlib
import importlib.util
from collections.abc import Callable

import torch
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel

from finetune.config.model import ModelSection
from finetune.model.loss import Gradients, Head


def uses_liger_loss(model: ModelSection) -> bool:
    """Whether the loss comes from Liger's fused linear cross entropy."""
    return model.liger_fused_linear_cross_entropy is not False and _obstacle() is None


def change_layers(network: PreTrainedModel, model: ModelSection, say: Callable[[str], None]) -> None:
    """Give the layers Liger's kernels where ``liger_rope``, ``liger_rms_norm`` or ``liger_glu_activation`` ask for it.

    transformers does it, with what Liger has for this architecture; where there is no CUDA device or no Liger, the
    layers stay as they are, and it is said.
    """
    kinds = {
        "rope": model.liger_rope,
        "rms_norm": model.liger_rms_norm,
        "swiglu": model.liger_glu_activation,
        "geglu": model.liger_glu_activation,
    }
    if not any(kinds.values()):
        return
    if obstacle := _obstacle():
        say(f"liger: not used, {obstacle}; the model's own layers compute the same")
        return
    wanted = {name: bool(value) for name, value in kinds.items()}
    apply_liger_kernel(network, {**wanted, "cross_entropy": False, "fused_linear_cross_entropy": False})
    say(f"liger: {', '.join(name for name, value in wanted.items() if value)} where Liger has it for this model")


def liger_loss(hidden: torch.Tensor, head: Head, targets: torch.Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
    """Do what :func:`finetune.model.loss.loss_and_gradients` does, with Liger's kernel."""
    liger = importlib.import_module("liger_kernel.transformers")  # an extra
    head = head.computing(hidden)
    rows, weight = hidden.detach().to(head.weight.dtype).requires_grad_(), head.weight.requires_grad_(wanted[1])
    bias = None if head.bias is None else head.bias.requires_grad_(wanted[2])
    fused = liger.LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)
    with torch.enable_grad(), torch.autocast(hidden.device.type, enabled=False):
        total = fused(weight, rows, targets, bias)
        total.backward()
    return Gradients(total.detach().float(), rows.grad, weight.grad, None if bias is None else bias.grad)


def _obstacle() -> str | None:
    if not torch.cuda.is_available():
        return "its kernels need a CUDA device"
    if importlib.util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed (pip install finetune[liger])"
    return None
