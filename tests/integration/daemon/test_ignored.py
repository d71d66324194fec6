"""Files in incoming/ that are no submissions: their reasons in the status and in the log."""

from __future__ import annotations

from tests.support.house import House, until

IGNORED = {
    ".hidden.yaml": "its name begins with a dot",
    "README": "its name does not end in .yaml or .yml",
    "web01.yaml.txt": "its name does not end in .yaml or .yml",
    "folder.yaml": "it is a directory",
}


def test_what_is_ignored_is_shown_and_logged_once(house: House) -> None:
    house.drop("folder.yaml", "").unlink()
    (house.spool / "incoming/folder.yaml").mkdir()
    for name in IGNORED.keys() - {"folder.yaml"}:
        house.drop(name, "")
    house.start()
    until(lambda: house.status().ignored_count == len(IGNORED), f"all are shown: {house.log}")
    assert {file.name: file.reason for file in house.status().ignored} == IGNORED
    for name, reason in IGNORED.items():
        assert house.log.count(f"spool: incoming/{name} of root is ignored: {reason}") == 1
    for name in IGNORED.keys() - {"folder.yaml"}:
        (house.spool / "incoming" / name).unlink()
    until(lambda: house.status().ignored_count == 1, "those that are gone are forgotten")
    assert house.log.count("is ignored") == len(IGNORED)
