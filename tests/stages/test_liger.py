"""With the kernels of liger-kernel, on a GPU or by Triton's interpreter, what is measured stays the same."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

from llamafactory_dids.core import gpu
from llamafactory_dids.stages import losses
from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.stages.losses import LanguageModelling
from llamafactory_dids.stages.per_sample import GradientEngine, sample_gradients
from llamafactory_dids.training.running import RunningGradients

liger = pytest.importorskip("liger_kernel.transformers", reason="needs liger-kernel")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {"llama": (LlamaConfig, modeling_llama), "qwen2": (Qwen2Config, modeling_qwen2)}


@pytest.fixture
def interpreted(monkeypatch):
    """Where kernels are interpreted: lets Triton's interpreter run liger's, which stay what they are.

    It takes a float for what it is, where a kernel asks it for its `.to`; reads bounds of a loop from arrays of one
    element, which numpy no longer turns into an integer; and does not know CUDA's own reciprocal square root.
    """
    if DEVICE == "cuda":
        return
    import triton.language as tl
    from liger_kernel.ops import rms_norm
    from triton.runtime import interpreter

    convert, patch = interpreter._implicit_cvt, interpreter._patch_lang_tensor

    def converted(value):
        if isinstance(value, float):
            return tl.tensor(interpreter.TensorHandle(np.array([value], dtype=np.float32), tl.float32), tl.float32)
        return convert(value)

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_implicit_cvt", converted)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
    monkeypatch.setattr(rms_norm, "rsqrt", lambda x: 1.0 / rms_norm.tl.sqrt(x))


@pytest.fixture(params=MODELS)
def models(request, interpreted, monkeypatch):
    """A model of transformers' own modules, and the same with liger's, which end with the test."""
    make_config, module = MODELS[request.param]
    for name, value in list(vars(module).items()):
        monkeypatch.setattr(module, name, value)  # so that it is put back
    torch.manual_seed(0)
    config = make_config(**SHAPE)
    plain = AutoModelForCausalLM.from_config(config)
    monkeypatch.setattr(type(plain), "forward", type(plain).forward)
    try:
        apply = getattr(liger, f"apply_liger_kernel_to_{request.param}")
    except ImportError as error:  # this liger-kernel wants another transformers
        pytest.skip(str(error))
    apply()  # as the host does, before it makes the model
    other = AutoModelForCausalLM.from_config(config)
    other.load_state_dict(plain.state_dict())
    assert type(other.model.norm).__module__.startswith("liger_kernel")
    return plain.to(DEVICE), other.to(DEVICE)


@pytest.fixture
def batch():
    ids = torch.randint(1, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :4] = -100
    labels[1, 8:], mask[1, 8:] = -100, 0
    return {k: v.to(DEVICE) for k, v in {"input_ids": ids, "labels": labels, "attention_mask": mask}.items()}


def test_the_gradient_of_each_sample_is_the_same(models, batch):
    found = []
    for model in models:
        losses_N, _, pairs, scale_N = GradientEngine(model, track_layers(model, 0.5), LanguageModelling()).run(batch)
        found.append([losses_N, *(sample_gradients(x, y) / scale_N[:, None, None] for x, y in pairs)])
    assert len(found[0]) == 1 + 2 * 7, "the loss, and two blocks of seven layers"
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert all(gradients.abs().max() > 1e-4 for gradients in found[0])


def test_the_running_gradients_of_a_training_are_the_same(models, batch):
    found = []
    for model in models:
        tracked = track_layers(model, 0.5, trainable_only=True)
        running = RunningGradients(2, tracked, TrackedEntries(tracked, 2000, seed=0), DEVICE)
        counts_N = LanguageModelling().counts(batch)
        running.watch([0, 1, 0], counts_N, 1 / counts_N.sum())
        loss = model(**batch).loss
        running.watch_loss(loss)
        loss.backward()
        found.append(running.close_window()[0].clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert (found[0].abs().amax(dim=1) > 1e-4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spent", [False, True])
def test_its_cross_entropy_gives_the_losses_and_the_gradient_of_autograd(interpreted, monkeypatch, spent, dtype):
    monkeypatch.setattr(gpu, "has_kernels", lambda _: True)  # where there is no GPU, Triton interprets it
    generator = torch.Generator().manual_seed(0)
    logits_JV = (5 * torch.randn(6, 501, generator=generator)).to(dtype).to(DEVICE)
    targets_J = torch.randint(501, (6,), generator=generator).to(DEVICE)
    weights_J = torch.rand(6, generator=generator).to(DEVICE)
    leaf = logits_JV.double().requires_grad_()
    expected_J = F.cross_entropy(leaf, targets_J, reduction="none")
    (expected_JV,) = torch.autograd.grad((expected_J * weights_J).sum(), leaf)

    own = logits_JV.clone().requires_grad_()
    logits = own * 1
    losses_J = losses._cross_entropy(logits, targets_J, spent)
    node = losses_J.grad_fn if dtype == torch.float32 else losses_J.grad_fn.next_functions[0][0]
    assert type(node).__name__.startswith("Liger")
    (gradient_JV,) = torch.autograd.grad((losses_J * weights_J).sum(), own)
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-5
    assert losses_J.dtype == torch.float32
    torch.testing.assert_close(losses_J.double(), expected_J, rtol=rounding, atol=1e-5)
    torch.testing.assert_close(gradient_JV.double(), expected_JV, rtol=2 * rounding, atol=1e-5)
    assert spent or torch.equal(logits.detach(), logits_JV), "the logits are the model's"


def test_where_it_is_not_installed_the_losses_are_torchs(monkeypatch):
    monkeypatch.setattr(gpu, "has_kernels", lambda _: True)
    monkeypatch.setattr(losses, "_ligers", lambda: None)
    logits_JV = torch.randn(4, 11, generator=torch.Generator().manual_seed(0)).to(DEVICE).requires_grad_()
    targets_J = torch.tensor([1, 0, 10, 3], device=DEVICE)
    found_J = losses._cross_entropy(logits_JV, targets_J, False)
    torch.testing.assert_close(found_J, F.cross_entropy(logits_JV, targets_J, reduction="none"))
