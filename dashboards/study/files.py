"""Every file of a study that is made from its runs: results, verdicts, report, figures."""

from typing import Any

from dashboards.study.figures import every_figure
from dashboards.study.maps import every_sheet
from dashboards.study.paper import ENDINGS, figure_file, named, table_file
from dashboards.study.report import FIGURES, write_figures, write_report
from dashboards.study.tables import every_table
from dashboards.tables.derived import judged, write_results, write_verdicts
from dashboards.tables.reading import StudyRun, read_study
from trainers.system.store import Store

TABLES = "tables"


def write_files(store: Store, name: str) -> tuple[StudyRun, dict[str, Any], list[str]]:
    """Write them; the study as read, its verdicts as judged, and the keys of what was written.

    Raises InputError, one line, when there is no such study or a registration is damaged.
    """
    study = read_study(store, name)
    verdicts = judged(study)
    figures = every_figure(study, verdicts)
    written = [
        write_results(study),
        write_verdicts(study, verdicts),
        write_report(study, verdicts, figures),
        *write_figures(study, figures),
    ]
    return study, verdicts, written


def write_one(
    store: Store, name: str, figure: str | None, table: str | None, form: str | None
) -> str:
    """Write one figure (as pdf, png or svg) or one table (csv, latex); the key of the file.

    Without a form a figure is a pdf, and a table a csv. Raises InputError, one line, when there is
    no such study, figure or table, or nothing that draws.
    """
    study = read_study(store, name)
    verdicts = judged(study)
    if figure is not None:
        form = form or "pdf"
        figures = {**every_figure(study, verdicts), **every_sheet(study.maps)}
        content = figure_file(named("figure", figures, figure), form)
        folder, of = FIGURES, figure
    else:
        form, of = form or "csv", str(table)
        content = table_file(named("table", every_table(study, verdicts), of), form)
        folder = TABLES
    key = f"{study.folder}/{folder}/{of}.{ENDINGS[form]}"
    store.put(key, content)
    return key
