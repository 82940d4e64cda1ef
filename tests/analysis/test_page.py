from dib_jax.analysis import page


def test_whatever_goes_in_as_text_means_itself():
    nasty = '<script>alert("&")</script>'
    shown = page.page(
        nasty,
        subtitle=nasty,
        lead=page.facts({nasty: nasty})
        + page.pairs(nasty, {nasty: nasty})
        + page.table([nasty], [[nasty]], caption=nasty)
        + page.command(nasty)
        + page.figure("image/png", b"", b"", width=1, alt=nasty, caption=nasty),
        sections=[page.Section('a"b', nasty, "")],
        footer="",
    )
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;alert(&quot;&amp;&quot;)") == 16


def test_numbers_are_aligned_as_numbers_and_a_missing_one_is_a_dash():
    shown = page.table(["name", "value"], [["a", None]], text={0})
    assert "<td>a</td>" in shown
    assert '<td class="number">–</td>' in shown


def test_only_a_far_too_long_table_scrolls_in_its_place():
    assert "wide tall" not in page.table(["x"], [[1]] * 24)
    assert "wide tall" in page.table(["x"], [[1]] * 25)


def test_sections_can_be_reached_by_their_names():
    shown = page.page(
        "t",
        subtitle="",
        lead="",
        sections=[page.Section("curves", "Training", "<p>x</p>")],
        footer="",
    )
    assert '<a href="#curves">Training</a>' in shown
    assert '<section id="curves"><h2>Training</h2><p>x</p></section>' in shown


def test_a_name_that_is_no_text_can_be_written():
    made = page.page("x\udcff", subtitle="", lead="", sections=[], footer="")
    assert b"<h1>x\\udcff</h1>" in made.encode()


def test_a_page_of_what_goes_on_loads_itself_again():
    parts = {"subtitle": "", "lead": "", "sections": [], "footer": ""}
    tag = '<meta http-equiv="refresh" content="60">'
    assert tag in page.page("x", **parts, refresh=60)
    assert "refresh" not in page.page("x", **parts).partition("<body>")[0]
