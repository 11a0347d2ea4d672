"""Rows that ingest must not take as they stand: in another unit, of another subject, there twice."""

import pytest

from tests.support.raw_tree import (
    CHART_FILE,
    CHARTEVENTS,
    FILES,
    ICUSTAYS,
    LAB_FILE,
    LABEVENTS,
    OUTPUT_FILE,
    OUTPUTEVENTS,
    STAYS_FILE,
)
from tests.support.raw_tree import ingested as run


@pytest.fixture(scope="module")
def interim(tmp_path_factory):
    return run(tmp_path_factory.mktemp("raw"))


def test_numbers_are_in_the_unit_of_their_item_whatever_their_row_names(tmp_path):
    frames, counts = run(
        tmp_path,
        {
            LAB_FILE: LABEVENTS.replace("___,1.2,mg/dL", "___,106.104,µmol / L").replace(
                "1.1,1.1,mg/dL", "1.1,1.1,mmol/L"
            ),
            OUTPUT_FILE: OUTPUTEVENTS.replace("120.5,ml", "0.1205,L").replace("-0,ml", "-0,ML "),
            CHART_FILE: CHARTEVENTS.replace("88,88,bpm", "88,88,None").replace("90,90,bpm", "90,90,mmHg"),
        },
    )
    assert frames["lab"]["valuenum"].to_list() == [pytest.approx(1.2), 0.01, 0.0]
    assert counts["lab"]["dropped"]["unit mmol/l of itemid 50912"] == 1
    assert counts["lab"]["noted"]["unit umol/l of itemid 50912: converted"] == 1
    assert frames["output"]["value"].to_list() == [0.0, 120.5]
    assert counts["output"]["noted"] == {"unit l of itemid 226559: converted": 1}
    assert frames["chart"]["valuenum"].drop_nulls().to_list() == [88.0]
    assert counts["chart"]["dropped"]["unit mmhg of itemid 220045"] == 1
    assert "noted" not in counts["chart"]


def test_a_text_may_name_any_unit(tmp_path):
    """220048, a rhythm, has none; 223900 is read as a text and as a score."""
    rows = CHARTEVENTS.replace("224650,None,,,", "224650,None,,bpm,")
    frames, counts = run(tmp_path, {CHART_FILE: rows})
    assert frames["chart"].filter(itemid=224650).height == 1
    assert not [reason for reason in counts["chart"]["dropped"] if reason.startswith("unit")]


def test_of_units_that_are_left_out_the_commonest_are_named(tmp_path):
    rows = "".join(
        f"1,11,31,,2150-01-01 12:30:{n:02d},,220045,{n},{n},{'x' * 30 if unit == 24 else f'u{unit}'},0\n"
        for unit in range(25)
        for n in range(unit + 1)
    )
    _, counts = run(tmp_path, {CHART_FILE: CHARTEVENTS + rows})
    named = {reason: n for reason, n in counts["chart"]["dropped"].items() if reason.startswith("unit")}
    assert named == {f"unit u{unit} of itemid 220045": unit + 1 for unit in range(5, 24)} | {
        f"unit {'x' * 20} of itemid 220045": 25
    }
    assert counts["chart"]["dropped"]["other units"] == 1 + 2 + 3 + 4 + 5


def test_rows_of_another_subject_than_their_stay_are_left_out(tmp_path):
    row = OUTPUTEVENTS.splitlines()[1]
    frames, counts = run(
        tmp_path,
        {
            OUTPUT_FILE: OUTPUTEVENTS
            + "2"
            + row[1:].replace("120.5", "999")
            + "\n"
            + row[1:].replace("120.5", "7")
            + "\n",
            CHART_FILE: CHARTEVENTS.replace("1,11,31,7,", "2,12,31,7,"),
        },
    )
    assert frames["output"]["value"].to_list() == [0.0, 7.0, 120.5]  # of no subject: the stay says whose it is
    assert counts["output"]["dropped"] == {"stay of another subject": 1}
    assert frames["chart"].filter(itemid=220045)["valuenum"].to_list() == [90.0]
    assert counts["chart"]["dropped"]["stay of another subject"] == 1


def test_a_row_that_stands_again_counts_once_and_two_bags_of_one_size_are_two(tmp_path, interim):
    twice = {file: FILES[file] + FILES[file].partition("\n")[2] * 2 for file in (CHART_FILE, OUTPUT_FILE, LAB_FILE)}
    frames, counts = run(tmp_path / "a", twice)
    for name, kept in (("chart", 4), ("output", 2), ("lab", 4)):
        assert frames[name].equals(interim[0][name])
        assert counts[name]["kept"] == interim[1][name]["kept"] == kept
        assert counts[name]["dropped"]["the same row again"] == 2 * kept
        assert (
            counts[name]["rows_read"]
            == 3 * interim[1][name]["rows_read"]
            == kept + sum(counts[name]["dropped"].values())
        )
        assert counts[name].get("noted") == interim[1][name].get("noted")
    row = OUTPUTEVENTS.splitlines()[1]
    bag = row.replace("2150-01-01 14:00:00,226559", "2150-01-01 14:01:00,226559")  # stored a minute later
    frames, counts = run(tmp_path / "b", {OUTPUT_FILE: OUTPUTEVENTS + bag + "\n" + row + "\n"})
    assert frames["output"]["value"].to_list() == [0.0, 120.5, 120.5]
    assert counts["output"]["dropped"] == {"the same row again": 1}


def test_rows_of_one_volume_in_two_units_are_two_in_whatever_order_they_stand(tmp_path):
    row = OUTPUTEVENTS.splitlines()[1]
    litres = row.replace("120.5,ml", "0.1205,L")
    frames, counts = run(tmp_path, {OUTPUT_FILE: OUTPUTEVENTS + "\n".join([litres, row, litres]) + "\n"})
    assert frames["output"]["value"].to_list() == [0.0, 120.5, 120.5]
    assert counts["output"]["dropped"] == {"the same row again": 2}
    assert counts["output"]["noted"] == {"unit l of itemid 226559: converted": 1}


def test_blanks_around_texts_and_units_say_nothing(tmp_path):
    rows = CHARTEVENTS.replace("224650,None,,,", "224650, None ,,,").replace("90,90,bpm", "90,90, bpm ")
    rows = rows.replace("88,88,bpm", "  ,, ")
    frames, counts = run(tmp_path, {CHART_FILE: rows})
    assert frames["chart"].select("itemid", "value", "valuenum").rows() == [
        (220045, None, 90.0),
        (223900, "NA", None),
        (224650, "None", None),
    ]
    assert counts["chart"]["dropped"]["no value"] == 2
    assert "noted" not in counts["chart"]


def test_a_lab_that_two_stays_see_counts_once_however_often_it_stands(tmp_path):
    """Drawn in the first stay of the admission and known in the second."""
    stays = ICUSTAYS.replace("2150-01-05 12:00:00", "2150-01-01 13:30:00") + (
        "1,11,33,MICU,MICU,2150-01-01 14:00:00,2150-01-05 12:00:00,4.0\n"
    )
    row = LABEVENTS.splitlines()[1]
    frames, counts = run(tmp_path, {STAYS_FILE: stays, LAB_FILE: LABEVENTS + row + "\n"})
    assert frames["lab"].filter(valuenum=1.2)["stay_id"].to_list() == [31, 33]
    assert counts["lab"]["noted"]["in a second stay"] == 1
    assert counts["lab"]["dropped"]["the same row again"] == 1
    assert counts["lab"]["rows_read"] == 9 == counts["lab"]["kept"] + sum(counts["lab"]["dropped"].values())
