"""The paper's Table 4 beside ours: what each assumption adds, and the words made of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.models import DetectorConfig
from qmdd.models.conventions import CONVENTIONS
from qmdd.models.table4 import TABLE4, Compared, Published, compare, nearest, published
from qmdd.models.table4_report import (
    convention_table,
    explain_ops,
    explain_storage,
    headline,
    ops_table,
    printed,
    storage_table,
)

#: Multiply-adds of ResNet-23 at 256 pixels: 16 of its 18 3x3 convolutions do 64*64*9*64*64, three
#: do half of it; stem and the three downsampling convolutions by hand.
FULL = 64 * 64 * 9 * 64 * 64
MAIN, STEM, DOWN = 15 * FULL + 3 * FULL // 2, 147 * 64 * 128 * 128, 3 * 64 * 128 * 32 * 32


@pytest.fixture(scope="module")
def rows() -> list[Compared]:
    return [compare(row) for row in TABLE4]


def test_as_built_by_hand(rows: list[Compared]) -> None:
    for row in rows:
        k = row.row.bits
        stem = STEM if k == 32 else STEM / 4
        assert row.ops * 1e9 == pytest.approx((MAIN + DOWN) * k / 32 + stem + 512, rel=1e-12)


def test_what_float_downsampling_adds_by_hand(rows: list[Compared]) -> None:
    for row in rows[1:]:
        k = row.row.bits
        assert row.ops_terms["downsampling"] * 1e9 == pytest.approx(DOWN * (1 - k / 32))
        weights = 64 * 128 + 128 * 256 + 256 * 512
        assert row.mb_terms["downsampling"] * 1e6 == pytest.approx(weights * (4 - k / 8))
        assert row.mb_terms["stem"] * 1e6 == pytest.approx(147 * 64 * 3)
    assert "downsampling" not in rows[0].ops_terms


def test_only_words_fit_the_papers_slope(rows: list[Compared]) -> None:
    """The one finding that hangs on no choice: 0.07 G a bit, give or take 0.01 by rounding."""
    wide, narrow = rows[3], rows[4]
    assert (wide.row.name, narrow.row.name) == ("Ours, 3 bits", "Ours, 2 bits")
    fits = [
        name
        for name, convention in CONVENTIONS.items()
        if 0.06 <= wide.ops_by(convention) - narrow.ops_by(convention) <= 0.08
    ]
    assert fits == ["word"]
    assert "Of the three conventions this fits: macs * k/32." in convention_table(rows).notes[0]


def test_a_float_stem_overshoots_every_row(rows: list[Compared]) -> None:
    for row in rows[1:]:
        assert row.ops_by(CONVENTIONS["word"], float_stem=True) > row.row.giga + 0.05
        assert row.ops_by(CONVENTIONS["word"]) == row.ops < row.row.giga


@given(
    st.floats(0, 1),
    st.dictionaries(st.sampled_from("abc"), st.floats(-1, 1), max_size=3),
    st.floats(0, 2),
)
def test_nearest_is_the_nearest_of_all_subsets(
    base: float, terms: dict[str, float], goal: float
) -> None:
    names, total = nearest(base, terms, goal)
    assert total == pytest.approx(base + sum(terms[name] for name in names))
    for size in range(len(terms) + 1):
        for subset in itertools.combinations(terms.values(), size):
            assert abs(total - goal) <= abs(base + sum(subset) - goal) + 1e-8


@pytest.mark.parametrize("bits", [2, 3, 32])
def test_the_papers_own_networks_have_a_row(bits: int) -> None:
    row = published(DetectorConfig("resnet23", bits), 256)
    assert row is not None
    assert (row.bits, row.options) == (bits, {})


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (None, 256),
        (DetectorConfig("resnet23", 2), 224),
        (DetectorConfig("resnet23", 4), 256),
        (DetectorConfig("resnet34", 2), 256),
        (DetectorConfig("resnet23", 2, cqb=False), 256),
        (DetectorConfig("resnet23", 2, width=0.5), 256),
    ],
)
def test_others_have_none(config: DetectorConfig | None, side: int) -> None:
    assert published(config, side) is None


def of(ops: float, terms: dict[str, float], mb: float = 5.0) -> Compared:
    return Compared(Published("Ours", 2, 0.25, 0.005, 5.0, 0.05), [], ops, terms, mb, {"stem": 0.1})


@pytest.mark.parametrize(
    ("ops", "terms", "sentence"),
    [
        (0.252, {"element-wise": -0.002}, "0.252 G as built, which is the paper's 0.25"),
        (0.2, {"element-wise": 0.05}, "outside the convolutions (+0.050) 0.250, which is the"),
        (0.2, {"element-wise": 0.02}, "(+0.020) 0.220, 0.030 short of the paper's 0.25 (12.0%;"),
        (0.3, {}, "0.300 G as built, 0.050 above the paper's 0.25 (20.0%; its rounding hides"),
    ],
)
def test_the_sentence_says_what_is_left(ops: float, terms: dict[str, float], sentence: str) -> None:
    assert sentence in explain_ops(of(ops, terms))


def test_the_sentence_of_storage() -> None:
    text = explain_storage(of(0.2, {}, mb=4.8))
    assert "with the stem's weights in float (+0.10) 4.90, 0.10 short of the paper's 5.0" in text


def test_tables_have_a_cell_for_every_column(rows: list[Compared]) -> None:
    for table in (ops_table(rows), storage_table(rows), convention_table(rows)):
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.markdown().count("\n|") == len(table.rows) + 1


def test_the_headline_is_the_tables_own_quotient(rows: list[Compared]) -> None:
    text = headline(rows)
    assert "2.7 / 0.25 = 10.8 (the paper: 10.8)" in text
    assert "62 / 5.0 = 12.4 (12.4)" in text
    assert f"= {rows[0].ops / rows[4].ops:.1f} and" in text


@pytest.mark.parametrize(
    ("value", "half", "text"), [(0.3, 0.005, "0.30"), (5.0, 0.05, "5.0"), (62.0, 0.5, "62")]
)
def test_printed_as_the_paper_prints(value: float, half: float, text: str) -> None:
    assert printed(value, half) == text
