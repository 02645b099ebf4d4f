"""Every file of a study that is made from its runs: results, verdicts, report, figures."""

from typing import Any

from dashboards.study.figures import every_figure
from dashboards.study.report import write_figures, write_report
from dashboards.tables.derived import judged, write_results, write_verdicts
from dashboards.tables.reading import StudyRun, read_study
from trainers.system.store import Store


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
