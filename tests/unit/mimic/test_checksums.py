"""SHA256SUMS.txt: read as sha256sum writes it, and compared with what is there."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from pipeline.mimic.checksums import compare, read_sums

A, B = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b"))
NAMES = st.lists(st.sampled_from(["hosp/a.csv.gz", "hosp/b.csv.gz", "icu/c.csv", "d.csv"]), unique=True)


def test_lines_of_every_kind_that_sha256sum_writes(tmp_path):
    lines = [f"{A}  hosp/patients.csv.gz", f"{B.upper()} *./icu/a b.csv.gz\r", "", "# no sum", f"{A[:-1]}  short", A]
    (tmp_path / "SHA256SUMS.txt").write_text("\ufeff" + "\n".join(lines))
    assert read_sums(tmp_path) == {"hosp/patients.csv.gz": A, "icu/a b.csv.gz": B}


def test_no_list_says_nothing_and_one_without_a_sum_verifies_nothing(tmp_path):
    assert read_sums(tmp_path) == {}
    assert compare(tmp_path, {"a": A}, ["a"]) == {"result": "absent"}
    (tmp_path / "SHA256SUMS.txt").write_text("")
    assert compare(tmp_path, {"a": A}, ["a"])["result"] == "partial"


@given(there=NAMES, listed=NAMES, changed=NAMES, data=st.data())
def test_verified_is_said_where_all_needed_files_are_in_the_list_and_equal(
    tmp_path_factory, there, listed, changed, data
):
    root = tmp_path_factory.mktemp("release")
    needed = data.draw(st.lists(st.sampled_from(there), unique=True)) if there else []
    (root / "SHA256SUMS.txt").write_text("".join(f"{B if name in changed else A}  {name}\n" for name in listed))
    found = compare(root, dict.fromkeys(there, A), needed)
    assert (found["result"] == "verified") == all(name in listed and name not in changed for name in needed)
    assert (found["result"] == "differ") == any(name in listed and name in changed for name in needed)
    assert found["compared"] + len(found["not_listed"]) == found["needed"] == len(needed)
    assert set(found["not_listed"]) == set(needed) - set(listed)
    assert set(found["differing"]) == set(needed) & set(listed) & set(changed)
    assert found["files_not_listed"] == len(set(there) - set(listed))
