"""`headwater init --vscode`: what has Visual Studio Code check a pipeline, and show mistakes where they are."""

from __future__ import annotations

from pathlib import Path

_TEMPLATES = Path(__file__).with_name("templates") / "vscode"


def files(folder: Path) -> dict[Path, Path]:
    """Each file of the folder's .vscode, with its template."""
    return {folder / ".vscode" / template.name: template for template in sorted(_TEMPLATES.iterdir())}


def there_already(folder: Path) -> list[Path]:
    return [file for file in files(folder) if file.exists()]


def write(folder: Path) -> list[str]:
    """The files, and what to do with them."""
    for file, template in files(folder).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(template.read_text(encoding="utf-8"))
    return [
        f"{folder / '.vscode'}: tasks for Visual Studio Code; open this folder with it, and",
        "  Ctrl+Shift+B               checks pipeline.toml and shows its mistakes where they are",
        "  Tasks: Run Test Task       runs its tests",
    ]
