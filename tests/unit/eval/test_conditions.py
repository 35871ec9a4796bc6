import pytest

from eval.conditions import Condition
from rnngan.errors import UserError

FIGURES = {
    "a/two_sample_auc[view=features]": 0.8,
    "b/two_sample_auc[view=features]": 0.6,
    "a/groove[q=64,pairs=all]/wasserstein1": 0.25,
    "a/note_density[a/b]/p_corrected": 0.01,
    "a/features_told_apart": 3.0,
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("two_sample_auc>0.7", ["a/two_sample_auc[view=features]"]),
        (" two_sample_auc[view=features] >= 0.6 ", list(FIGURES)[:2]),
        ("a/two_sample_auc[view=features]<0.9", ["a/two_sample_auc[view=features]"]),
        ("b/two_sample_auc[view=features]<-1e-3", []),
        ("groove>0.2", ["a/groove[q=64,pairs=all]/wasserstein1"]),
        ("wasserstein1 == 0.25", ["a/groove[q=64,pairs=all]/wasserstein1"]),
        ("note_density[a/b]<.05", ["a/note_density[a/b]/p_corrected"]),
        ("features_told_apart<=3", ["a/features_told_apart"]),
    ],
)
def test_a_condition_names_figures_and_compares_them(text, met):
    assert list(Condition.parse(text).met_by(FIGURES)) == met


@pytest.mark.parametrize("text", ["", "auc", "auc>", ">0.7", "auc>high", "auc=>0.7", "auc>1.2.3"])
def test_what_is_no_condition(text):
    with pytest.raises(UserError, match=r"--fail-if wants a figure, one of >= <= == > < and a n"):
        Condition.parse(text)


def test_a_figure_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"no figure is called 'two_sample_au'; did you mean 'two_"):
        Condition.parse("two_sample_au>0.7").met_by(FIGURES)
