"""Markup that text cannot break out of, and histograms that count every value once."""

from __future__ import annotations

import re

import numpy as np
import pytest

from live2diff.html import Html, element, histogram, page, picture, show_number, table


def test_text_is_escaped_and_markup_is_not():
    inner = element("b", "<i>&", title='"><script>')
    assert inner == '<b title="&quot;&gt;&lt;script&gt;">&lt;i&gt;&amp;</b>'
    assert element("p", inner, 3, class_="x", data_y=None) == f'<p class="x">{inner}3</p>'
    assert element("img", alt="'") == '<img alt="&#x27;">'
    assert isinstance(inner, Html)


def test_a_table_escapes_and_aligns():
    text = table(["<name>", "count"], [["<a>", 1234567], ["b", 0.123456]])
    assert '<th scope="row">&lt;a&gt;</th><td class="number">1,234,567</td>' in text
    assert '<th scope="col" class="number">count</th>' in text and ">0.123<" in text


def test_a_page_is_a_whole_document():
    text = page("<t>", element("p", "x"))
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">') and text.endswith("</html>\n")
    assert "<title>&lt;t&gt;</title>" in text and "prefers-color-scheme: dark" in text
    assert picture(b"\xff", "it").startswith('<img src="data:image/jpeg;base64,/w=="')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (2.0, "2"),
        (0.12345, "0.123"),
        (123456.7, "123,457"),
        (1e-9, "1e-09"),
    ],
)
def test_numbers(value, text):
    assert show_number(value) == text


def counts(figure: Html) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r": ([\d,]+)</title>", figure)]


VALUES = {
    "usual": np.random.default_rng(0).normal(5, 1, 1000),
    "constant": np.full(7, 3.0),
    "zeros": np.zeros(5),
    "one": np.array([1e-9]),
    "long tail": np.concatenate([np.random.default_rng(0).random(5000), [1e6]]),
    "negative": np.array([-3.0, -1.0, -2.0]),
    "integers": np.arange(10),
    "two": np.array([0.0, 1e12]),
    "almost the same": np.array([1e16, 1e16 + 2]),
    "next to nothing": np.array([1e-320, 3e-320]),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_histogram_counts_every_value_once(name):
    values = VALUES[name]
    figure = histogram(values, "Title <b>", "s")
    assert sum(counts(figure)) == len(values)
    assert "nan" not in figure and "inf" not in figure and "Title &lt;b&gt;" in figure
    places = [float(x) for x in re.findall(r' (?:x|y|x1|x2|y1|y2)="([-\d.]+)"', figure)]
    assert min(places) >= 0 and max(places) <= 420
    ticks = [float(text) for text in re.findall(r'text-anchor="middle">([-\d.e+]+)</text>', figure)]
    assert 2 <= len(ticks) <= 12 and ticks == sorted(set(ticks))


def test_a_long_tail_does_not_hide_the_rest():
    figure = histogram(VALUES["long tail"], "T", "s")
    assert "the last bar also holds" in figure and 'class="rest"' in figure
    assert len(counts(figure)) > 20


def test_values_that_are_not_known_are_told():
    figure = histogram([1.0, float("nan"), float("inf"), 1e308, -1e308, 2.0], "T", "s")
    assert sum(counts(figure)) == 2 and "4 not known" in figure
    assert "no values" in histogram([], "T", "s")
