"""The command `kmlp`, as a person calls it."""

import pytest

from kmlp.commands import main


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["list", "convmlp_*"], ["convmlp_l", "convmlp_m", "convmlp_s"]),
        (
            ["list", "smlpnet_t*", "--costs"],
            ["| `smlpnet_t` | 224x224 | 24.12 (24.1) | 4.99 (5.0) | 20.0 | 81.9 |"],
        ),
        (
            ["list", "resmlp_b24", "--costs", "--format", "csv"],
            ["parameters,reported_parameters_millions", ",129138280,115.7,", "16x16"],
        ),
        (
            ["list", "msmlp_t", "--costs", "--format", "text"],
            ["msmlp_t          224x224      28.66 (28)", "82.1  18.5 (16.8)", "1, 2\n"],
        ),
        (
            ["info", "convmlp_s"],
            ["convmlp_s at 224x224", "9,022,920", "2.385", "train form", "merged"],
        ),
        (
            ["info", "resmlp_s12", "--image-size", "32", "48", "--num-classes", "5"],
            ["at 32x48"],
        ),
        (["info", "convmlp_s", "--layers", "--merged"], ["tokenizer_conv0", "total"]),
    ],
)
def test_output(argv, words, capsys):
    assert main.main(argv) == 0
    output = capsys.readouterr().out
    for word in words:
        assert word in output


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["list", "nothing*"], ["kmlp list", "'nothing*'"]),
        (["list", "--format", "csv"], ["--costs", "--format csv"]),
        (["info", "convmlp_z"], ["convmlp_s", "'convmlp_z'"]),
        (["info", "resmlp_s12", "--image-size", "225"], ["224 or 240", "225"]),
        (["info", "convmlp_s", "--image-size", "1", "2", "3"], ["height and width"]),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert main.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("kmlp: ")
    for word in (*words, "Received"):
        assert word in captured.err
