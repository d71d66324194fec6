"""The steps of the schema are one chain, numbered like their files."""

from __future__ import annotations

from hyper2kvmd.jobs.schema import MIGRATIONS, known_steps, newest_step


def test_each_step_follows_the_one_before() -> None:
    texts = {path.name: path.read_text() for path in sorted((MIGRATIONS / "versions").glob("v[0-9]*.py"))}
    assert len(texts) == len(known_steps())
    before = None
    for name, text in texts.items():
        assert f'revision = "{name[1:5]}"\ndown_revision = {before}\n' in text, f"{name} follows {before}"
        before = f'"{name[1:5]}"'
    assert before == f'"{newest_step()}"'
