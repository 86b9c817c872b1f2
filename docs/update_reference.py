"""Write the reference of all recipe fields into docs/recipes.md: ``python docs/update_reference.py``.

tests/cli/test_recipes_verb.py fails where the page and the code differ.
"""

from __future__ import annotations

from pathlib import Path

from tenfold.cli.recipe_text import reference

BEGIN, END = "<!-- fields: written by docs/update_reference.py -->\n", "<!-- end of fields -->\n"
PAGE = Path(__file__).with_name("recipes.md")


def updated(page: str) -> str:
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
