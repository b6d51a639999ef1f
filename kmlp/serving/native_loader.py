"""Load and ask a SavedModel through TensorFlow's C++ loader, without its Python.

Run as a process of its own, `python native_loader.py FOLDER ASKED ANSWERS`, this file
calls the library inside the installed package, which holds what a server runs. It never
imports TensorFlow, whose Python has a loader and operations of its own.
"""

import ctypes
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from ctypes import Structure, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("libtensorflow_cc.*", "python/*pywrap_tensorflow*")
SYMBOL = "TF_LoadSessionFromSavedModel"
_SERVE = b"serve"
_STRING, _STRING_BYTES = 7, 24
# TensorFlow's number of a type -> NumPy's name of it.
_TYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8"}
_TYPES |= {9: "int64", 10: "bool", 17: "uint16", 19: "float16", 22: "uint32"}
_TYPES |= {23: "uint64", _STRING: "object"}
_NUMBERS = {name: number for number, name in _TYPES.items()}
_PLAN = "plan"


def save(file: Path, tensors: Mapping[str, np.ndarray], plan: Any = None) -> None:
    """Write tensors, strings among them, and a plan into an .npz file without pickles.

    Args:
        file: Path of the file.
        tensors: Arrays by name; those of `object` hold bytes.
        plan: What JSON can say.
    """
    arrays: dict[str, Any] = {_PLAN: np.array(json.dumps(plan))}
    for name, value in tensors.items():
        if value.dtype.hasobject:
            joined = b"".join(value.reshape(-1).tolist())
            arrays[f"bytes {name}"] = np.frombuffer(joined, np.uint8)
            value = np.vectorize(len, otypes=[np.int64])(value)
            name = f"lengths {name}"
        arrays[f"of {name}"] = value
    np.savez(file, **arrays)


def load(file: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Return the tensors and the plan of a file of `save`."""
    tensors = {}
    with np.load(file, allow_pickle=False) as arrays:
        plan = json.loads(str(arrays[_PLAN]))
        for key in (key for key in arrays if key.startswith("of ")):
            value, name = arrays[key], key.removeprefix("of ")
            if name.startswith("lengths "):
                name, lengths = name.removeprefix("lengths "), value
                joined = arrays[f"bytes {name}"].tobytes()
                ends = np.cumsum(lengths.reshape(-1)).tolist()
                value = np.empty(lengths.shape, object)
                value.reshape(-1)[:] = [
                    joined[start:end] for start, end in zip([0, *ends], ends)
                ]
            tensors[name] = value
    return tensors, plan


class _Output(Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]


class Loader:
    """A SavedModel in a session of TensorFlow's library.

    Args:
        library: The library from `find_library`.
        folder: Folder of one version.

    Raises:
        RuntimeError: If the library does not load it; in the library's words.
    """

    def __init__(self, library: ctypes.CDLL, folder: str) -> None:
        self._library = library
        self._status = self._pointer("TF_NewStatus")
        self._graph = self._pointer("TF_NewGraph")
        tags = (c_char_p * 1)(_SERVE)
        self._session = self._asked(
            SYMBOL,
            c_void_p(self._pointer("TF_NewSessionOptions")),
            None,
            folder.encode(),
            tags,
            c_int(1),
            c_void_p(self._graph),
            None,
        )

    def ask(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> list[np.ndarray]:
        """Return the values of tensors of the graph.

        Args:
            inputs: Arrays by the name of the tensor that they stand for.
            outputs: Names of tensors, such as `"dense:0"`.

        Raises:
            RuntimeError: If the library refuses; in its words.
        """
        fed = (_Output * len(inputs))(*map(self._output, inputs))
        asked = (_Output * len(outputs))(*map(self._output, outputs))
        values = (c_void_p * len(inputs))(*map(self._tensor, inputs.values()))
        answers = (c_void_p * len(outputs))()
        self._asked(
            "TF_SessionRun",
            c_void_p(self._session),
            None,
            *(fed, values, c_int(len(inputs))),
            *(asked, answers, c_int(len(outputs))),
            *(None, c_int(0), None),
        )
        return [self._array(c_void_p(answer)) for answer in answers]

    def _pointer(self, name, *arguments):
        """Call a function of the library that returns a pointer."""
        function = self._library[name]
        function.restype = c_void_p
        return function(*arguments)

    def _asked(self, name, *arguments):
        """Call a function that also tells a status, and raise what that says."""
        status = c_void_p(self._status)
        found = self._pointer(name, *arguments, status)
        if self._library.TF_GetCode(status):
            self._library.TF_Message.restype = c_char_p
            message = self._library.TF_Message(status).decode(errors="replace")
            raise RuntimeError(message)
        return found

    def _output(self, tensor):
        name, _, index = tensor.partition(":")
        graph = c_void_p(self._graph)
        found = self._pointer("TF_GraphOperationByName", graph, name.encode())
        if not found:
            raise RuntimeError(f"the graph has no operation {name}")
        return _Output(found, int(index or 0))

    def _tensor(self, array):
        number = _NUMBERS[str(array.dtype)]
        strings = number == _STRING
        size = array.size * _STRING_BYTES if strings else array.nbytes
        dims = (ctypes.c_int64 * array.ndim)(*array.shape)
        tensor = self._pointer(
            "TF_AllocateTensor", c_int(number), dims, c_int(array.ndim), c_size_t(size)
        )
        data = self._pointer("TF_TensorData", c_void_p(tensor))
        if not strings:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
            return tensor
        for place, value in zip(_places(data, array.size), array.reshape(-1)):
            self._library.TF_StringInit(place)
            self._library.TF_StringCopy(place, value, c_size_t(len(value)))
        return tensor

    def _array(self, tensor):
        library = self._library
        library.TF_Dim.restype = ctypes.c_int64
        dims = range(library.TF_NumDims(tensor))
        shape = [library.TF_Dim(tensor, c_int(axis)) for axis in dims]
        dtype = np.dtype(_TYPES[library.TF_TensorType(tensor)])
        array = np.empty(shape, dtype)
        data = self._pointer("TF_TensorData", tensor)
        if not dtype.hasobject:
            ctypes.memmove(array.ctypes.data, data, array.nbytes)
            return array
        for index, place in enumerate(_places(data, array.size)):
            start = self._pointer("TF_StringGetDataPointer", place)
            library.TF_StringGetSize.restype = c_size_t
            size = library.TF_StringGetSize(place)
            array.reshape(-1)[index] = ctypes.string_at(start, size)
        return array


def _places(data, count) -> Iterator[c_void_p]:
    return (c_void_p(data + _STRING_BYTES * index) for index in range(count))


def find_library() -> ctypes.CDLL:
    """Return the library of the installed TensorFlow that has its C++ loader.

    Raises:
        LookupError: If no file of the package is one; it says which were looked at.
    """
    spec = importlib.util.find_spec("tensorflow")
    folders = [Path(f) for f in spec.submodule_search_locations or ()] if spec else []
    files = [file for f in folders for kind in LIBRARIES for file in f.glob(kind)]
    for file in files:
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        if hasattr(library, SYMBOL):
            return library
    names = ", ".join(sorted(file.name for file in files)) or "no library at all"
    raise LookupError(f"TensorFlow's package has no {SYMBOL} here, but {names}")


def main(folder: str, asked: str, answers: str) -> None:
    """Ask what a file asks, and print as JSON what came of it.

    Args:
        folder: Folder of one version.
        asked: Path of a file of `save`, whose plan is `{signature: [{input: tensor},
            {output: tensor}]}` and whose tensors are named `signature/input`.
        answers: Path of the file of answers, `signature/output`.
    """
    told: dict[str, Any] = {"failure": None, "not_run": None}
    try:
        library = find_library()
        library.TF_Version.restype = c_char_p
        told["version"] = library.TF_Version().decode()
        loader = Loader(library, folder)
        tensors, plan = load(Path(asked))
        found: dict[str, np.ndarray] = {}
        for signature, (inputs, outputs) in plan.items():
            fed = {t: tensors[f"{signature}/{name}"] for name, t in inputs.items()}
            values = loader.ask(fed, list(outputs.values()))
            found |= {f"{signature}/{n}": v for n, v in zip(outputs, values)}
        save(Path(answers), found)
    except KeyError as error:
        told["not_run"] = f"a tensor is of the type {error}, which NumPy does not have"
    except LookupError as error:
        told["not_run"] = str(error)
    except RuntimeError as error:
        told["failure"] = str(error)
    told["python"] = sorted(name for name in sys.modules if "tensorflow" in name)
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
