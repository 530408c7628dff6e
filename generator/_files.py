"""Which files are generated, and what they should hold."""

from pathlib import Path

from generator._adapter_pages import adapter_pages, adapter_table
from generator._chooser import chooser
from generator._facts import all_facts
from generator._lists import api_page, exports
from generator._measured import Measured
from generator._overview import overview
from generator._page import page
from generator._sharing_tables import sharing_tables

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "methods"
ADAPTERS = ROOT / "docs" / "adapters.md"
CHOOSER = ROOT / "docs" / "choose.md"
API = ROOT / "docs" / "api.md"
SHARING = ROOT / "docs" / "sharing.md"
EXPORTS = ROOT / "src" / "motet" / "balance" / "__init__.py"
RESULTS = ROOT / "benchmarks" / "results"


def outputs() -> dict[Path, str]:
    """Every generated file with the text that it should hold."""
    facts, measured = all_facts(), Measured.read(RESULTS)
    found = {PAGES / f"{fact.name}.md": page(fact, measured) for fact in facts}
    found[PAGES / "index.md"] = overview(facts, measured)
    found[CHOOSER] = chooser(CHOOSER.read_text(encoding="utf-8"), facts, measured)
    found[API] = api_page(API.read_text(encoding="utf-8"), facts)
    found |= {ADAPTERS.parent / "adapters" / f"{name}.md": text for name, text in adapter_pages().items()}
    found[SHARING] = sharing_tables(SHARING.read_text(encoding="utf-8"), RESULTS)
    found[ADAPTERS] = adapter_table(ADAPTERS.read_text(encoding="utf-8"))
    found[EXPORTS] = exports(EXPORTS.read_text(encoding="utf-8"), facts)
    return found


def stale() -> list[str]:
    """Paths from the root of generated files that differ from what they should hold, or that nothing makes any more."""
    texts = outputs()
    differing = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    pages = [*sorted(PAGES.glob("*.md")), *sorted((PAGES.parent / "adapters").glob("*.md"))]
    left = [path for path in pages if path not in texts]
    return [path.relative_to(ROOT).as_posix() for path in (*differing, *left)]
