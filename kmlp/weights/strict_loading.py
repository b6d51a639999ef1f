"""Loading published states, strictly."""

import os

from kmlp.errors import InputError
from kmlp.weights.matching import match
from kmlp.weights.misfit import misfit
from kmlp.weights.readers import read_state


def load_published(model, source, *, new_head=False, key=None):
    """Fills a model with a published state; every array and variable exactly once.

    Without a head (`include_top=False`) or classifier (`num_classes=0`) in the model,
    the state's is left out. Buffers that nothing learned are passed over: PyTorch's
    `num_batches_tracked` and the masks and indices of Swin and Focal transformers.

    Args:
        model: `RepMLPNet` (with `locality_injected=True` for the merged form that
            circulates), `ResMLP`, `ConvMLP`, `MSMLP`, `SMLPNet`, `SwinTransformer` or
            `FocalTransformer`, with the published structure; or over one of them a
            `RetinaNet`, `MaskRCNN`, `SemanticFPN` or `UperNet`.
        source: path of a PyTorch, `.safetensors`, `.npz` or HDF5 file, or a mapping of
            published names to arrays. PyTorch files are read without executing what
            they pickle. timm's names of ResMLP and Swin and mmpretrain's of RepMLPNet
            are known too; of detectors mmdetection's, of segmenters mmsegmentation's.
        new_head: whether the classifier stays as it is in the model, for classes of
            one's own or a state without one; everything else is loaded strictly, the
            head's norm too. A detector keeps all that it predicts for each class.
        key: which of several states of a file, as `kmlp.weights.read_state` has it,
            such as `"model_ema"`.

    Returns:
        The model.

    Raises:
        InputError: a missing, surplus or misshapen array; the message names what the
            state seems to be, and some of the names on both sides. No variable has been
            changed then. Or a model that is none of the families.
        OSError: a file that is not there.
    """
    is_file = isinstance(source, (str, os.PathLike))
    if key is not None and not is_file:
        raise InputError(
            "`key` chooses among the states of a file; of a mapping pass the part "
            f"itself. Received: key={key!r} with {type(source).__name__}"
        )
    state = read_state(source, key) if is_file else dict(source)
    found = match(model, state, new_head=new_head)
    if not found.is_complete:
        received = source if is_file else f"{len(state)} arrays"
        raise InputError(misfit(model, state, found, received))
    found.assign()
    return model
