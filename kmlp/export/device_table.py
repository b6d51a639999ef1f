"""What a person sees of an export."""

from kmlp.artifacts.form_figures import FLOAT32, TRAINED
from kmlp.artifacts.speed import THREADS
from kmlp.console import aligned

_WITH_IMAGES = ("top-1", "drop", "disagree", "largest logit error")


def table(forms, evaluated):
    """Aligned text with a row per form.

    Args:
        forms: `{name: entry}` as in the job's JSON.
        evaluated: whether images were shown to them.
    """
    header = ("", *_WITH_IMAGES) if evaluated else ("",)
    header += ("bytes", "share", *(f"ms, {n} thr." for n in THREADS), "FC only")
    rows = [header]
    for name, form in forms.items():
        row = (_TITLES.get(name, f"TFLite {name}"),)
        if evaluated:
            row += (
                f"{form['top1']:.2%}",
                f"{form['drop_points']:+.2f}" if name != FLOAT32 else "",
                f"{form['disagreements']:,}" if name != FLOAT32 else "",
                _error(form) if name != FLOAT32 else "",
            )
        if name == TRAINED:
            row += (f"{form['bytes']:,}", "", *("" for _ in THREADS), "")
        else:
            row += (
                f"{form['bytes']:,}",
                f"{form['share_of_float32']:.1%}",
                *(f"{form['latency_ms'][n]:.2f}" for n in THREADS),
                "yes" if form["fully_connected_only"] else "no",
            )
        rows.append(row)
    return aligned(rows)


def losses_table(name, losses):
    """The layers that lose most, as aligned text."""
    width = max(len(loss.layer) for loss in losses)
    lines = [f"{loss.layer:<{width}}  {loss.change:8.2%}" for loss in losses]
    head = f"{name}: change of the outputs by one layer alone (RMS), the worst first"
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _error(form):
    absolute, relative = form["largest_logit_error"], form["relative_logit_error"]
    return "not finite" if absolute is None else f"{absolute:.3g} ({relative:.2%})"


_TITLES = {TRAINED: "Keras, trained"}
