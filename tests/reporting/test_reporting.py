from covector.reporting import svg, write_page


def test_a_page_extends_the_base_and_escapes_text_but_not_drawings(tmp_path):
    template = tmp_path / "page.html"
    template.write_text("{% extends 'base.html' %}{% block main %}{{ text|twice }}{{ drawing|safe }}{% endblock %}")
    drawing = svg(lambda axes: axes.plot([0, 1], [1, 0]))
    write_page(template, {"text": "<b>", "drawing": drawing}, tmp_path / "out.html", {"twice": lambda x: x + x})
    text = (tmp_path / "out.html").read_text()
    assert "&lt;b&gt;&lt;b&gt;" in text
    assert text.count("<svg") == 1
    assert text.startswith("<!doctype html>")
    assert "<style>" in text
