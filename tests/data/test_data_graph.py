"""WordNet's noun hierarchy against published counts and another graph library."""

import networkx
import pytest
import torch

from covector import data
from covector.errors import ArgumentError


def test_wordnet_has_the_published_counts():
    graph = data.load("wordnet-nouns")
    assert len(graph.nodes) == len(set(graph.nodes)) == 82_115
    assert graph.edges.shape == (84_427, 2)
    indices = torch.cat(list(graph.splits.values()))
    assert torch.equal(indices.sort().values, torch.arange(84_427))


def test_the_mammal_subtree_and_its_closure_equal_those_of_networkx():
    graph = data.load("wordnet-nouns")
    whole = networkx.DiGraph(graph.edges.tolist())
    root = graph.nodes.index("mammal")
    below = whole.subgraph(networkx.ancestors(whole, root) | {root})
    mammals = data.load("wordnet-nouns", root="mammal")
    names = {(mammals.nodes[child], mammals.nodes[parent]) for child, parent in mammals.edges.tolist()}
    assert names == {(graph.nodes[child], graph.nodes[parent]) for child, parent in below.edges}
    assert len(mammals.nodes) == len(below) == 1182
    pairs = {(mammals.nodes[a], mammals.nodes[b]) for a, b in mammals.closure().tolist()}
    closed = networkx.transitive_closure(below)
    assert pairs == {(graph.nodes[a], graph.nodes[b]) for a, b in closed.edges}


def test_the_splits_of_a_subtree_are_those_of_the_whole():
    graph, mammals = data.load("wordnet-nouns"), data.load("wordnet-nouns", root="mammal")
    for split, chosen in mammals.splits.items():
        whole = graph.edges[graph.splits[split]].tolist()
        named = {(graph.nodes[child], graph.nodes[parent]) for child, parent in whole}
        assert all((mammals.nodes[a], mammals.nodes[b]) in named for a, b in mammals.edges[chosen].tolist())
    assert sum(len(chosen) for chosen in mammals.splits.values()) == len(mammals.edges)


def test_an_unknown_root_is_refused():
    with pytest.raises(ArgumentError, match="root='unicorns'"):
        data.load("wordnet-nouns", root="unicorns")
