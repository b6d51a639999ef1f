"""Our models against PyTorch networks of the published form, in one run.

    python tests/benchmark_published.py convmlp_s msmlp_t smlpnet_t

The PyTorch networks are the oracles of the tests, whose operations are those of
the published code. Not a test: prints a table per architecture.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]


def torch_contenders(name, batches):
    """The published form in PyTorch (for RepMLPNet its merged form too)."""
    import torch
    from oracles import torch_networks

    from kmlp.benchmarking import Contender

    forms = {"PyTorch": {}}
    if name.startswith("repmlpnet"):
        forms["PyTorch, merged"] = {"deploy": True}
    for label, arguments in forms.items():
        network = torch_networks.build(name, **arguments).eval()
        size = 256 if name.endswith("256") else 224
        for batch in batches:
            x = torch.randn(batch, 3, size, size)

            def run(network=network, x=x):
                with torch.inference_mode():
                    network(x)

            yield Contender(label, batch, None, run)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    from kmlp import benchmarking

    benchmarking.use_threads(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)
    for name in arguments.names:
        timings = benchmarking.benchmark(
            name,
            batches=arguments.batch,
            rounds=arguments.rounds,
            threads=arguments.threads,
            further=list(torch_contenders(name, arguments.batch)),
        )
        print(f"{name}\n{benchmarking.table(timings)}\n", flush=True)


if __name__ == "__main__":
    main()
