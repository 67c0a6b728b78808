"""What a language model with an adaptive softmax does with its scores."""

from itertools import pairwise

import numpy as np

from urzoo.onnx.graph import Graph, Value


def adaptive(graph: Graph, scores: Value, clusters: Value, cutoffs: list[int]) -> Value:
    """Log-probabilities of the adaptive softmax, see `urzoo.models.output_urlstm.adaptive_scores`.

    Args:
        graph: Takes the nodes.
        scores: Of all words, `(batch, time, vocabulary)`.
        clusters: Scores of the clusters, `(batch, time, clusters)`.
        cutoffs: The ids at which the clusters begin.
    """
    edges = [0, *cutoffs, np.iinfo(np.int64).max]
    words = [
        graph("Slice", scores, graph.constant([start]), graph.constant([end]), graph.constant([2]))
        for start, end in pairwise(edges)
    ]
    first = graph("LogSoftmax", graph("Concat", words[0], clusters, axis=-1), axis=-1)
    frequent, *of_clusters = graph.results(
        "Split", first, graph.constant([cutoffs[0], *[1] * len(cutoffs)]), count=1 + len(cutoffs), axis=-1
    )
    within = [
        graph("LogSoftmax", part, axis=-1) + cluster for part, cluster in zip(words[1:], of_clusters, strict=True)
    ]
    return graph("Concat", frequent, *within, axis=-1)
