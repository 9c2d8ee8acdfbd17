"""The command `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from .console import print_notes, results
from .exit_status import SomeInputsFailed
from .options import Told, arg, settings_of

if TYPE_CHECKING:
    from ..formats.identify import Identity

Files = Annotated[
    Positional[tuple[str, ...]], arg(metavar="FILE", help="VAE files or folders, full checkpoints, hf:OWNER/NAME")
]


def inspect(
    files: Files,
    remember: Annotated[
        str | None,
        arg(metavar="NAME", help="remember this VAE by a name, which `inspect` and `match` show from now on"),
    ] = None,
    told: Told = (),
) -> dict[str, Any]:
    """Identify VAE files: family, f, c, layout, dtype, scale, who loads them; compare several.

    In Python: `vaeworks.inspect`.
    """
    from ..formats.identify import ComparedFiles
    from ..formats.identify import inspect as run

    result = run(*files, settings=settings_of(told), name=remember)
    if not isinstance(result, ComparedFiles):
        _print_identity(result)
        return result.to_dict()
    for identity in result.files:
        _print_identity(identity)
    for pair in result.relations:
        results().print(f"{pair.a} and {pair.b}: {pair.relation}")
    if result.failed:
        raise SomeInputsFailed(result.to_dict(), [file.error for file in result.failed])
    return result.to_dict()


def _print_identity(identity: Identity) -> None:
    from rich.table import Table

    out = results()
    out.print(str(identity.path), style="bold")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, value in identity.rows():
        table.add_row(name, value)
    out.print(table)
    loaders = Table(box=None, show_header=False, padding=(0, 2))
    for application, verdict in identity.support.items():
        loaders.add_row(application, verdict.loads, verdict.why)
    out.print(loaders)
    print_notes(identity.notes)
