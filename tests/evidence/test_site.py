from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from covector.errors import ArgumentError
from covector.evidence import Budget, DidNotRun, Evidence, Finding, build_site, run
from covector.evidence.table import table

VOID = {"meta", "link", "input", "img", "br", "hr"}


class Page(HTMLParser):
    """Reads a page: links, ids, and whether every element is closed by its own end tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.ids, self.images, self.stack, self.text = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        self.images += [values] if tag == "img" else []
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def site(write_paper, write_module, tmp_path):
    write_paper("gam")
    write_paper("diffgrad", False)
    write_module("adago", "raise ValueError('no <data> here')")
    write_paper("oasis")
    results = [run(slug, Budget(out=tmp_path / slug)) for slug in ("gam", "diffgrad", "adago")]
    return build_site(results, tmp_path / "site")


def test_every_paper_has_a_page_and_a_link_to_it(site):
    links = Page(site).links
    for row in table():
        assert f"papers/{row.slug}.html" in links
        assert (site.parent / "papers" / f"{row.slug}.html").is_file()


def test_every_link_inside_the_site_leads_somewhere(site):
    pages = [site, *site.parent.glob("papers/*.html")]
    ids = {page.resolve(): Page(page).ids for page in pages}
    followed = 0
    for page in pages:
        for link in Page(page).links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https"
                continue
            target = (page.parent / parts.path).resolve() if parts.path else page.resolve()
            assert target.is_file(), (page.name, link)
            assert not parts.fragment or parts.fragment in ids[target], (page.name, link)
            followed += 1
    assert followed > 120


def test_ids_are_unique_on_each_page(site):
    for page in [site, *site.parent.glob("papers/*.html")]:
        ids = Page(page).ids
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("slug", "state"),
    [
        ("gam", "holds"),
        ("diffgrad", "does not hold"),
        ("adago", "did not run"),
        ("oasis", "not run"),
        ("ademamix", "open"),
    ],
)
def test_a_page_shows_the_paper_s_state_in_words(site, slug, state):
    html = (site.parent / "papers" / f"{slug}.html").read_text()
    assert f'">{state}</span></h1>' in html


def test_the_index_counts_the_states(site):
    words = " ".join("".join(Page(site).text).split())
    assert "1 holds 1 does not hold 1 did not run 1 not run 116 open" in words


def test_a_page_sets_the_claim_beside_the_measurement(site):
    text = "".join(Page(site.parent / "papers" / "gam.html").text)
    for part in (
        "It is smaller",
        "smaller",
        "loss",
        "two points",
        "covector reproduce gam --budget smoke --seed 0",
    ):
        assert part in text


def test_figures_are_copied_and_described(site):
    (image,) = Page(site.parent / "papers" / "gam.html").images
    assert image["alt"] == "Loss by step"
    assert (site.parent / "papers" / image["src"]).resolve().is_file()


def test_text_of_an_experiment_cannot_become_markup(tmp_path):
    finding = Finding("<script>alert(1)</script>", "<b>", "<i>", "&", "<u>", True, "<a href='x'>")
    failed = DidNotRun("adago", "ValueError: <img src=x>", "")
    index = build_site([Evidence("gam", [finding]), failed], tmp_path)
    for slug in ("gam", "adago"):
        page = Page(index.parent / "papers" / f"{slug}.html")
        assert not {"x"} & set(page.links)
    assert "<script>" not in (index.parent / "papers" / "gam.html").read_text()


def test_a_later_result_replaces_an_earlier_one(tmp_path):
    def outcome(holds):
        return Evidence("gam", [Finding("a", "b", 1, 2, "c", holds, "d")])

    index = build_site([outcome(True), outcome(False)], tmp_path)
    assert "does not hold</span></h1>" in (index.parent / "papers" / "gam.html").read_text()


def test_building_twice_gives_the_same_files(site, tmp_path):
    def content(root):
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    first = content(build_site([], tmp_path / "a").parent)
    build_site([Evidence("gam", [Finding("a", "b", 1, 2, "c", True, "d")])], tmp_path / "a")
    assert content(build_site([], tmp_path / "a").parent) == first


def test_a_result_of_no_paper_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="slug="):
        build_site([DidNotRun("no-such-paper", "", "")], tmp_path)
