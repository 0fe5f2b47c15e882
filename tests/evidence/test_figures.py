import matplotlib as mpl
import pytest

from covector.evidence import figure


def draw(path):
    with figure(path, title="Loss", x="step", y="loss") as axes:
        axes.plot([0, 1, 2], [3, 2, 1], label="method")
        axes.plot([0, 1, 2], [3, 3, 2], label="baseline")
    return path


def test_the_same_drawing_is_the_same_bytes(tmp_path):
    assert draw(tmp_path / "a.svg").read_bytes() == draw(tmp_path / "b.svg").read_bytes()


def test_the_suffix_chooses_the_format(tmp_path):
    assert draw(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in draw(tmp_path / "a.svg").read_text()


def test_labels_make_a_legend(tmp_path):
    with figure(tmp_path / "a.svg") as labeled:
        labeled.plot([0, 1], label="method")
    with figure(tmp_path / "b.svg") as unlabeled:
        unlabeled.plot([0, 1])
    assert labeled.get_legend() is not None
    assert unlabeled.get_legend() is None


def test_matplotlib_s_settings_are_left_alone(tmp_path):
    before = dict(mpl.rcParams)
    draw(tmp_path / "a.svg")
    assert dict(mpl.rcParams) == before


def test_nothing_is_written_when_drawing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), figure(tmp_path / "a.svg"):
        raise ZeroDivisionError
    assert not (tmp_path / "a.svg").exists()


def test_a_legend_for_which_there_is_no_room_stands_beside_the_axes(tmp_path):
    with figure(tmp_path / "full.svg", size=(4.0, 3.0)) as full:
        for k in range(12):
            full.plot([0, 1], [k, 11 - k], label=f"method {k}")
    with figure(tmp_path / "room.svg", size=(4.0, 3.0)) as room:
        room.plot([0, 1], [0, 1], label="method")
    assert full.get_legend() is None
    assert len(full.figure.legends) == 1
    assert full.figure.get_figwidth() > 4.0
    assert room.figure.get_figwidth() == 4.0


def test_ticks_of_steps_are_whole_and_those_of_a_short_logarithmic_axis_plain(tmp_path):
    with figure(tmp_path / "a.svg") as axes:
        axes.semilogy([1, 2, 3, 4], [2.0, 1.5, 1.3, 1.2])
    axes.figure.draw_without_rendering()
    across = [label.get_text() for label in axes.get_xticklabels()]
    up = [label.get_text() for label in axes.get_yticklabels(which="both") if label.get_text()]
    assert all(float(text).is_integer() for text in across)
    assert len(up) >= 3
    assert all(0.5 < float(text) < 3.0 for text in up)
