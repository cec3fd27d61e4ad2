"""The page in Chromium, fed with recorded topics: the numbers are worked out by hand in tests/unit/test_board.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from fedstream.board.actions import Actions
from fedstream.board.state import Board
from fedstream.errors import StackError
from fedstream.messages.rounds import global_model
from fedstream.settings import Settings
from tests.board.conftest import open_page
from tests.board.followed import TOPIC
from tests.board.recorded import play_many

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "fedstream" / "board" / "static"
TEXTS = """() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) if (walk.currentNode.data.trim()) found.push(walk.currentNode.data.trim());
  return found;
}"""
TABS = ("overview", "learning", "streams", "letters", "follow", "try")


def rows(page, place):
    """Return the cells of a table, row by row."""
    return [row.locator("td").all_inner_texts() for row in page.locator(f"{place} tbody tr").all()]


def text(page, place):
    return page.locator(place).inner_text()


def test_the_numbers_in_the_picture_are_those_of_the_topics(page):
    picture = page.locator("#picture").text_content()
    assert "150/s" in picture  # 100 and 50 readings a second
    assert "3,500 records" in picture  # 2,000 and 1,500 readings
    assert "weight 40.5000" in picture
    assert "1,990 readings, late" in picture
    assert "global weight 40.6250" in picture
    assert "best 1.000 (v. 1)" in picture
    assert page.locator("#picture .box.bad").count() == 1  # fog-2 has said nothing for 30 s


def test_the_table_behind_the_picture_says_the_same(page):
    page.get_by_text("As a table").first.click()
    parts = {row[0]: row for row in rows(page, "#flow")}
    assert parts["fog-2"][1].startswith("its driver has said nothing for 30 s, and 400 records wait")
    assert parts["fog-2"][1].endswith("make ps; make logs S=fog-2")
    assert parts["fog-2"][2:] == ["0/s", "400 (5.0 s)"]
    assert parts["sensors"][2] == "150/s"
    assert parts["fog-1"][3] == "10 (0 ms)"


def test_what_is_not_well_stands_above_with_what_to_type(page):
    found = page.locator("#troubles li").all_inner_texts()
    assert [line.split(":")[0] for line in found] == ["fog-2", "fog-1"]
    assert found[0].endswith("make ps; make logs S=fog-2")
    assert "has not answered round 3 in time" in found[1]


def test_a_job_that_has_ended_says_why_in_its_own_words(page, server):
    job = {"name": "squares", "trouble": {"kind": "failed", "seconds": 5, "query": "", "behind": 7}}
    job["error"] = {"text": "NUMBERS_PORT is <b>x</b>", "seconds": 5}
    others = [row for row in server.first["jobs"] if row["name"] != "squares"]
    server.newest.publish(server.first | {"jobs": [*others, job]})
    found = page.locator("#troubles li", has_text="squares:")
    expect(found).to_have_text(
        "squares: ended with an error 5.0 s ago. It said: NUMBERS_PORT is <b>x</b> make ps; make logs S=squares"
    )
    page.get_by_text("As a table").first.click()
    assert "It said: NUMBERS_PORT is <b>x</b>" in page.locator("#flow").inner_text()


def test_squares_and_alerts_are_judged(page):
    assert "1 of 3 sampled pairs are not" in text(page, "#squares")
    assert "(5, 26)" in text(page, "#squares")
    assert "25.0 % alarms among the last 4 sampled" in text(page, "#alerts")
    assert "p95 8 ms" in text(page, "#alerts")


def test_the_rounds_show_scores_and_what_was_missing(context, server):
    page = open_page(context, server, "#learning")
    newest, first = rows(page, "#rounds")
    assert newest[0] == "2"
    assert newest[9] == "missing: 1"
    assert first[0] == "1"
    assert first[4:7] == ["400", "0.6500", "0.7451"]  # 2 * 95 / 255
    versions = rows(page, "#versions")
    assert [row[0] for row in versions] == ["2", "1", "0"]
    assert [row[5] for row in versions] == ["current", "★ best", ""]


def test_what_stayed_at_the_fog_is_set_against_what_was_sent(context, server):
    page = open_page(context, server, "#learning")
    saved = {row[0]: row for row in rows(page, "#saved")}
    size = server.first["bytes"]
    assert saved["all nodes"][1] == "500"
    assert saved["all nodes"][2] == "34.8 kB"  # 500 readings of 69.5 bytes
    ratio = size["readings"] / (size["updates"] + size["models"])
    assert saved["all nodes"][5] == f"{ratio:.1f} times less is sent"


def test_a_round_that_closes_appears_without_a_reload(context, server):
    page = open_page(context, server, "#learning")
    page.evaluate("window.mark = 1")
    server.newest.publish(server.second)
    expect(page.locator("#rounds tbody td").first).to_have_text("3")
    # Both nodes: 2 * 140 / (280 + 10 + 10); the curve has one point more.
    assert rows(page, "#rounds")[0][4:7] == ["300", "0.1667", "0.9333"]
    points = page.locator("#chart-f1 polyline.all").get_attribute("points").split()
    assert len(points) == 3
    assert page.evaluate("window.mark") == 1


def test_the_curve_of_f1_is_drawn_to_scale_and_its_table_has_the_same_numbers(context, server):
    page = open_page(context, server, "#learning")
    points = page.locator("#chart-f1 polyline.all").get_attribute("points").split()
    heights = [float(point.split(",")[1]) for point in points]
    # From 10 (F1 = 1) to 212 (F1 = 0): 10 + (1 - 190/255) * 202 = 61.5
    assert heights == [pytest.approx(61.5, abs=0.06), 10.0]
    page.locator("#chart-f1 summary").click()
    assert rows(page, "#chart-f1") == [["2", "1.0000", "1.0000", "–"], ["1", "0.7451", "0.8571", "0.6667"]]


def test_the_streams_show_batches_and_lag(context, server):
    page = open_page(context, server, "#streams")
    batches = {row[0]: row for row in rows(page, "#table41")}
    assert batches["fog-1"][1:3] == ["0.20 s", "0.30 s"]
    queries = {row[0]: row for row in rows(page, "#queries")}
    assert queries["fog-2"][5:7] == ["400", "5.0 s"]
    assert queries["squares"][3:5] == ["the socket", "15"]
    topics = {row[0]: row for row in rows(page, "#topics")}
    assert topics["sensor-data-node-1"][1:3] == ["2,000", "100/s"]


def test_what_somebody_sent_stays_text(context, server):
    page = open_page(context, server, "#letters")
    newest, first = rows(page, "#letter-rows")
    assert newest[4] == '<script>document.title="taken over"</script><img src=x onerror=alert(1)>'
    assert newest[3] == "not JSON: <b>JSON is malformed</b>"
    assert [newest[2], first[2]] == ["–", "fog-1"]
    assert first[1] == "sensor-data-node-1[0]@16"
    assert page.locator("#letter-rows :is(script, img, b)").count() == 0
    assert page.title() == "Dead letters – fedstream"


def test_a_reading_is_followed_from_a_place_that_was_typed(context, server):
    page = open_page(context, server, "#follow")
    page.get_by_label("Topic").fill(TOPIC)
    page.get_by_label("Offset").fill("2")
    page.keyboard.press("Enter")
    expect(page.locator("#follow-steps tbody tr")).to_have_count(5)
    steps = {row[0]: row for row in rows(page, "#follow-steps")}
    assert steps["counted"][1].endswith("2.000 s later")  # the reading of 102 s, the weight of 104 s
    assert "fog-1 with it: 44.0000, of 4 readings and 0 rejected" in steps["counted"][2]
    assert steps["counted"][2].endswith("model-weights[0]@3")
    assert "answered round 1: it learned from 4 readings, starting from version 0" in steps["learned"][2]
    assert "Version 1 (FedAvg) was made of 2 updates" in steps["version"][2]
    page.get_by_role("link", name="Français").click()  # the place stays
    expect(page.locator("#follow-steps")).to_contain_text("La version 1 (FedAvg)")


def test_a_reading_is_followed_on_while_something_is_to_come(context, server):
    page = open_page(context, server, f"#follow/{TOPIC}/0/7")
    expect(page.locator("#follow-steps")).to_contain_text("No version has it yet: the round is open.")
    server.log.add("global-model", 110, global_model("run-a", 3, 2, {}), "mlp")
    expect(page.locator("#follow-steps")).to_contain_text("Round 2 ended without this update")


def test_a_place_can_be_clicked_wherever_it_stands(context, server):
    page = open_page(context, server, "#letters")
    page.get_by_role("link", name="sensor-data-node-1[0]@16").click()
    expect(page.locator("#follow-steps")).to_contain_text("No record has this offset yet.")
    page.locator("#follow-links a").first.click()
    expect(page.get_by_label("Offset")).to_have_value("1998")


def test_without_actions_the_page_shows_the_command_of_a_rollback(context, server):
    page = open_page(context, server, "#learning")
    command = "source deploy/local/env.sh; fedstream models rollback {} --run run-a"
    expect(page.locator("#rollback-command")).to_have_text(command.format(1))  # the best one
    page.locator("#rollback-form input").fill("0")
    expect(page.locator("#rollback-command")).to_have_text(command.format(0))
    expect(page.get_by_role("button", name="Roll back")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.locator("#rollback-dialog")).to_be_hidden()


def test_with_actions_the_page_rolls_back_once_that_is_confirmed(context, server):
    asked = []

    def roll_back(run_id, version):
        asked.append((run_id, version))
        if version == 7:
            raise StackError("there is no version 7")
        return global_model(run_id, 4, 3, {}, restored_from=version)

    server.stop()
    server.actions = Actions(roll_back)
    server.start()
    server.newest.publish(server.first)
    page = open_page(context, server, "#learning")
    page.locator("#rollback-form input").fill("1")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Make version 1 of run run-a the current one again?")
    assert Axe().run(page).violations_count == 0
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert asked == []
    for version, said in (("1", "Version 1 is back as version 3."), ("7", "Not done: there is no version 7")):
        page.locator("#rollback-form input").fill(version)
        page.keyboard.press("Enter")
        dialog.get_by_role("button", name="Roll back").click()
        expect(page.locator("#rollback-said")).to_have_text(said)
    assert asked == [("run-a", 1), ("run-a", 7)]


def test_of_fifty_nodes_those_that_are_not_well_stand_in_the_picture(context, server):
    server.newest.publish(play_many(Board(Settings()), 50, 30))
    page = open_page(context, server, "#overview")
    picture = page.locator("#picture")
    expect(picture).to_contain_text("and 46 more nodes")
    names = [text for text in picture.locator(".strong").all_text_contents() if text.startswith("fog-")]
    assert names == ["fog-3", "fog-1", "fog-2", "fog-4"]  # the third one is silent
    page.get_by_text("As a table").first.click()
    assert len([row for row in rows(page, "#flow") if row[0].startswith("fog-")]) == 50


def test_a_long_list_of_troubles_leaves_room_for_the_picture(page, server):
    trouble = {"kind": "ended", "seconds": 1, "query": "", "behind": 0}
    jobs = [{"name": f"fog-{n}", "trouble": trouble, "error": None} for n in range(1, 13)]
    server.newest.publish(server.first | {"jobs": jobs})
    expect(page.locator("#troubles li")).to_have_count(9)
    expect(page.locator("#troubles li").last).to_have_text("and 5 more: see the table below")  # with "fog-1 is late"


def test_the_page_comes_back_by_itself_when_the_board_was_started_again(page, server):
    server.stop()
    page.wait_for_selector("#live.bad")
    server.start()
    server.newest.publish(server.second)
    page.wait_for_selector("#live.good", timeout=15_000)
    page.get_by_role("link", name="Learning").click()
    expect(page.locator("#rounds tbody td").first).to_have_text("3")
    assert len(rows(page, "#rounds")) == 3  # each once


@pytest.mark.parametrize("tab", TABS)
def test_the_french_page_has_no_english_text(context, server, tab):
    page = open_page(context, server, f"?lang=fr#{tab}")
    assert page.locator("html").get_attribute("lang") == "fr"
    english, french = (json.loads((STATIC / f"{each}.json").read_text(encoding="utf-8")) for each in ("en", "fr"))

    def shape(text):  # of a text with places for values
        return re.sub(r"\\\{\w+\\\}", ".*", re.escape(text))

    names = {row["topic"] for row in server.first["topics"]} | {"squares", "alerts", "events"}  # in each language
    found = page.evaluate(TEXTS)
    assert len(found) > 20
    for key, text in english.items():
        if len(text) > 12 and shape(text) != shape(french[key]):
            seen = [each for each in found if re.fullmatch(shape(text), each)]
            assert [each for each in seen if each not in names and not re.fullmatch(shape(french[key]), each)] == [], (
                key
            )


def test_the_language_can_be_changed_on_the_page(page):
    page.get_by_role("link", name="Français").click()
    page.wait_for_selector("#live.good")
    assert text(page, "h2 >> nth=0") == "Ce qui circule, et où"
    assert "40,6250" in page.locator("#picture").text_content()


def test_all_pages_can_be_reached_by_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for tab in TABS:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator(f"#tab-{tab}")).to_be_visible()
        assert page.locator("main section:not([hidden])").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "language"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the first command of "try it" is copied, or marked
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_the_page_has_no_fault_that_axe_finds(context, server, tab, scheme):
    page = open_page(context, server, f"#{tab}")
    page.emulate_media(color_scheme=scheme)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("lang", ["en", "fr"])
@pytest.mark.parametrize("tab", TABS)
def test_the_page_fits_a_phone(context, server, tab, lang):
    page = open_page(context, server, f"?lang={lang}#{tab}")
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    cut = "cell => cell.offsetParent && cell.scrollWidth > cell.clientWidth + 1 ? [cell.innerText] : []"
    assert page.evaluate(f"[...document.querySelectorAll('th, td')].flatMap({cut})") == []


def test_nothing_moves_for_those_who_do_not_want_it(page):
    moving = "getComputedStyle(document.querySelector('.arrow.moving')).animationName"
    assert page.evaluate(moving) == "flow"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == "none"


def test_the_picture_of_the_readme_is_made(page, pytestconfig, tmp_path):
    target = ROOT / "docs" / "img" / "board.png"
    made = target if pytestconfig.getoption("--picture") else tmp_path / "board.png"
    made.parent.mkdir(exist_ok=True)
    page.screenshot(path=made, clip={"x": 0, "y": 0, "width": 1280, "height": 800})
    assert made.stat().st_size <= 200_000
    assert target.stat().st_size <= 200_000
