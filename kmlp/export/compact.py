"""TFLite files without what no interpreter reads."""

from pathlib import Path

from kmlp.artifacts.flatbuffer import packed, unpacked


def compact(file):
    """Shortens a TFLite file's names and stores what is equal once.

    The converter names a tensor after all the operations that it fused or unrolled,
    which in a small int8 file takes as much room as a tenth of the weights; the first
    of them says where the tensor belongs. Inputs and outputs keep their names.

    Args:
        file: path of the file, which is written anew.
    """
    content = Path(file).read_bytes()
    model = unpacked(content)
    for subgraph in model.subgraphs:
        ends = {*subgraph.inputs, *subgraph.outputs}
        names = {subgraph.tensors[index].name for index in ends}
        for index, tensor in enumerate(subgraph.tensors):
            if index not in ends and tensor.name:
                tensor.name = _unused(tensor.name.lstrip(b";").split(b";")[0], names)
                names.add(tensor.name)
    Path(file).write_bytes(packed(model, len(content)))


def _unused(name, names):
    """The name, with a number where another tensor has it."""
    number, candidate = 1, name
    while candidate in names:
        number += 1
        candidate = b"%s:%d" % (name, number)
    return candidate
