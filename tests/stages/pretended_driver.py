"""Measures and projects on the CPU and on a pretended accelerator without float64, and says what was found as JSON."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from llamafactory_dids.core.fisher import impact
from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.gradients import GradientFeatures, SampleProjector, Samples
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.stages.meter import GradientMeter
from llamafactory_dids.stages.per_sample import GradientEngine
from tests.helpers import NEXT_TOKENS, collate, samples, tiny_model
from tests.stages.pretended import NPU, OnNpu, Pretending


def model_on(device):
    model = tiny_model(num_blocks=2).requires_grad_(False)
    if device == NPU:
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = torch.nn.Parameter(OnNpu(weight.detach()), requires_grad=False)
            for name, value in module._buffers.items():
                module._buffers[name] = OnNpu(value)
    return model


def found_on(device):
    model, rows = model_on(device), samples(5, seed=1)
    tracked = track_layers(model, 0.5)
    engine, entries = GradientEngine(model, tracked, NEXT_TOKENS), TrackedEntries(tracked, 900, seed=5)
    meter = GradientMeter(engine, entries, collate, device=device)
    tasks, domain_P = meter.tasks([rows]), meter.domain(samples(3, seed=2))
    domains_DP = torch.stack([domain_P, tasks.gradients_TP[0]])
    projector = SampleProjector(model, tracked, NEXT_TOKENS, 0.1, 16, 0)
    features = GradientFeatures(Samples(rows, [len(row["input_ids"]) for row in rows], collate), projector)
    return {
        "device": domain_P.device.type,
        "losses": tasks.losses_T.tolist(),
        "impact": impact(domains_DP, tasks.gradients_TP, tasks.fisher_TP).tolist(),
        "token losses": meter.token_losses(rows).mean(),
        "features": [block.values_NK.cpu().tolist() for block in features.blocks(range(5))],
    }


if __name__ == "__main__":
    on_cpu = found_on(torch.device("cpu"))
    with Pretending():
        print(json.dumps([on_cpu, found_on(NPU)]))
