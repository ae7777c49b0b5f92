"""The curves of experiments.anneal_lab: bits per byte and pass@1 against tokens."""

from pathlib import Path

from corpus.records import optional


def draw(arms, path):
    """A row of panels per mixture, a panel per validation folder and one for pass@1, a curve per shape. arms: of
    summary.json."""
    pyplot = optional("matplotlib.pyplot", "plots")
    pyplot.switch_backend("Agg")
    start = next((arm for arm in arms if arm["shape"] == "trunk"), None)
    decays = [arm for arm in arms if arm["group"] == "decay"]
    mixtures = list(dict.fromkeys(arm["mixture"] for arm in decays))
    shapes = list(dict.fromkeys(arm["shape"] for arm in decays))
    folders = list(decays[0]["sources"])
    size = 4.2 * (len(folders) + 1), 3.2 * len(mixtures)
    figure, axes = pyplot.subplots(
        len(mixtures), len(folders) + 1, figsize=size, squeeze=False, constrained_layout=True
    )
    for row, mixture in zip(axes, mixtures):
        for number, axis in enumerate(row):
            folder = folders[number] if number < len(folders) else None
            for color, shape in enumerate(shapes):
                own = [arm for arm in decays if arm["mixture"] == mixture and arm["shape"] == shape]
                tokens, bands = curves(own, start, folder)
                axis.fill_between(tokens, [min(band) for band in bands], [max(band) for band in bands], alpha=0.15)
                means = [sum(band) / len(band) for band in bands]
                axis.plot(tokens, means, "o-", markersize=3, color=f"C{color}", label=shape)
            title = f"bits per byte, {Path(folder).name}" if folder else "pass@1"
            axis.set(title=f"{mixture}: {title}", xlabel="million tokens")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize="small")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def curves(arms, start, folder):
    """(million tokens, [the arms' values there]) of arms that were evaluated at the same tokens, behind the trunk's own
    value. start: the trunk's arm or None; folder: whose bits per byte, or None for pass@1."""

    def value(point):
        """What is drawn of an evaluation."""
        return point["sources"][folder] if folder else point["pass@1"]

    points = [(0.0, [value(start)])] if start else []
    for evaluations in zip(*(arm["curve"] for arm in arms)):
        values = [value(evaluation) for evaluation in evaluations if value(evaluation) is not None]
        if values:
            points.append((evaluations[0]["tokens"] / 1e6, values))
    return [tokens for tokens, _ in points], [values for _, values in points]
