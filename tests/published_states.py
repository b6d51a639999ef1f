"""Published states that the reference files lack, and the forms they circulate in."""

import argparse

import numpy as np
from cases import REFERENCE

import kmlp

# mmpretrain's modules, read off its backbone and its linear head; longer ones first.
MMPRETRAIN = (
    ("conv_embedding.conv.", "backbone.patch_embed.projection."),
    ("conv_embedding.bn.", "backbone.patch_embed.norm."),
    ("head_norm.", "backbone.final_norm."),
    ("head.", "head.fc."),
    ("embeds.", "backbone.downsample_layers."),
    ("stages.", "backbone.stages."),
    (".gp.fc1.", ".gp.conv1.conv."),
    (".gp.fc2.", ".gp.conv2.conv."),
    (".prebn1.", ".norm1."),
    (".prebn2.", ".norm2."),
)
# Where its converter put the stem.
MMCLS = (
    ("backbone.patch_embed.projection.", "backbone.path_embed.conv."),
    ("backbone.patch_embed.norm.", "backbone.path_embed.bn."),
)


def state_of(name, key=None):
    """A reference file's state."""
    return kmlp.weights.read_state(REFERENCE / f"{name}.npz", key)


def renamed(state, *tables):
    """A state under other names."""
    result = {}
    for name, array in state.items():
        for old, new in [row for table in tables for row in table]:
            if old.startswith("."):
                name = name.replace(old, new)
            elif name.startswith(old):
                name = new + name.removeprefix(old)
        result[name] = array
    return result


def with_counters(state):
    """A state with PyTorch's counters, as every real one has them."""
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.array(7, "int64")
        for name in state
        if name.endswith("running_mean")
    }
    return {**state, **counters}


class CfgNode(dict):
    """As yacs pickles its configurations: a mapping with attributes."""

    def __init__(self, entries=(), frozen=False):
        super().__init__(entries)
        self.__dict__["_frozen"] = frozen


def trainer_file(state, trainer):
    """What a trainer saves around a state, as objects for `torch.save`."""
    import torch

    tensors = {name: torch.from_numpy(np.array(a)) for name, a in state.items()}
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    averaged = {name: t * 0 + 1 for name, t in tensors.items()}
    wrapped = {f"module.{name}": t for name, t in tensors.items()}
    around = {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule, "epoch": 3}
    return {
        # DeiT
        "bare": tensors,
        # Swin's trainer, which RepMLP and MS-MLP use
        "yacs": {
            "model": tensors,
            **around,
            "max_accuracy": torch.tensor(81.0),
            "config": CfgNode({"MODEL": CfgNode({"NAME": "x"}, True)}, True),
        },
        # SPACH
        "argparse": {
            "model": tensors,
            **around,
            "model_ema": averaged,
            "args": argparse.Namespace(lr=1e-3, output=REFERENCE),
        },
        # timm's
        "timm": {"arch": "x", "state_dict": wrapped, "state_dict_ema": averaged},
        "averages alone": {"state_dict_ema": wrapped, "args": argparse.Namespace()},
        # mmpretrain
        "mm": {
            "meta": {"CLASSES": ["a", "b"], "hook_msgs": {}, "seed": 0},
            "state_dict": tensors,
        },
    }[trainer]
