"""The command `rsp-hpc`. Everything heavy is imported by the command that needs it, so that --help is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from . import __version__
from .errors import EXIT_BUG, EXIT_CONFIG, EXIT_DONE, EXIT_FAILURES, BadData, ConfigError, RspError
from .stages import STAGES

click.UsageError.exit_code = EXIT_CONFIG

EXIT_CODES = """\b
Exit codes: 0 all done; 3 done, with failures listed in failures.json; 4 the configuration or the command line is wrong;
75 stopped on request, the same command resumes; 1 a bug. """


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="rsp-hpc")
def main() -> None:
    """Reduce an imaging survey: raw exposures in, calibrated visits, coadds and catalogues per sky tract out.

    \b
    Try it:      rsp-hpc simulate configs/demo.yaml && mpirun -n 2 rsp-hpc run configs/demo.yaml
    One tract:   mpirun -n 64 rsp-hpc run survey.yaml --tract 9813
    Look inside: rsp-hpc show run/visits/1001.h5

    Every command that works may be started by mpirun or srun on any number of ranks, with the same result to the last bit,
    and started again to do what is left.
    """


def _guarded(function):
    """Errors that a user can mend are one line and an exit code, not a trace."""
    import functools

    @functools.wraps(function)
    def wrapped(*arguments, **options):
        try:
            code = function(*arguments, **options)
        except RspError as error:
            code = EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILURES if isinstance(error, BadData) else EXIT_BUG
            _say(error, code)
        sys.stdout.flush()
        sys.exit(code or EXIT_DONE)

    return wrapped


def _say(error: RspError, code: int) -> None:
    """One line on the terminal, from rank 0; where the other ranks know nothing of the error, from this one, and end all."""
    mpi = sys.modules.get("mpi4py.MPI")
    world = mpi.COMM_WORLD if mpi is not None and mpi.Is_initialized() else None
    alone = world is None or world.Get_size() == 1
    shared = alone or getattr(error, "shared", False)
    if alone or not shared or world.Get_rank() == 0:
        click.echo(f"rsp-hpc: {error}", err=True)
    if not shared:
        world.Abort(code)


def _survey_options(function):
    """The options that all commands on a survey share."""
    options = (
        click.argument("config", type=click.Path()),
        click.option("--data", type=click.Path(), help="Folder with the raw files [the configuration's]."),
        click.option("--output", type=click.Path(), help="Folder for the products [the configuration's]."),
        click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one value: coadds.coadd.clip=4."),
        click.option("--visit", "visits", type=int, multiple=True, help="Only this visit (repeatable, as all selections)."),
        click.option("--detector", "detectors", multiple=True, help="Only this detector."),
        click.option("--band", "bands", multiple=True, help="Only this band."),
        click.option("--tract", "tracts", type=int, multiple=True, help="Only this tract, and the visits that touch it."),
        click.option("--patch", "patches", type=int, multiple=True, help="Only this patch."),
        click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing."),
        click.option("--reprocess", is_flag=True, help="Do it again and replace what is there, also stale products."),
        click.option("--max-time", type=click.FloatRange(min=0.0), metavar="SECONDS",
                     help="Stop in good time before so many seconds."),
        click.option("--ranks", type=click.IntRange(min=1), help="Stop unless MPI has so many ranks (a guard in job scripts)."),
        click.option("--verbose", is_flag=True, help="Debug lines in the logs."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _start(config, data, output, changes, ranks, verbose, **selection):
    """MPI, configuration, logs: the Run of this command line."""
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # files are never opened while they are written
    from .parallel import world

    comm = world(ranks)
    from . import log
    from .stages.survey import Options, survey_from

    selection = {name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in selection.items()}
    log.set_up(comm.rank, None, verbose)
    return survey_from(config, tuple(changes), comm, Options(**selection, verbose=verbose), data, output)


def _stage_command(name: str, text: str) -> None:
    @main.command(name, help=text, epilog=EXIT_CODES)
    @_survey_options
    @_guarded
    def command(**options):
        from .stages.run import run_stages

        return run_stages(_start(**options), (name,))


_stage_command("ingest", "Look at every raw file: a verdict for each, tracts and patches it overlaps; writes survey.db.")
_stage_command("visits", "Detrend, calibrate and measure visits: one HDF5 file each.")
_stage_command("coadds", "Warp visits onto a tract's patches and combine them: one file per tract.")
_stage_command("objects", "Detect, deblend and measure objects on the coadds: one catalogue per tract.")
_stage_command("report", "Write the HTML report: numbers and pictures of what is there.")


class _WithDefault(click.Group):
    """A group whose first word may be left out: `calibs CONFIG` is `calibs run CONFIG`."""

    def parse_args(self, context, arguments):
        if arguments and arguments[0] not in (*self.commands, "-h", "--help"):
            arguments = ["run", *arguments]
        return super().parse_args(context, arguments)


@main.group(cls=_WithDefault, epilog=EXIT_CODES)
def calibs():
    """Calibration products: build, list, certify, compare. `calibs CONFIG` builds the kinds that the configuration names.

    \b
    A first time:       rsp-hpc calibs survey.yaml
    One kind again:     mpirun -n 16 rsp-hpc calibs build flat survey.yaml --label 2026-02 --set calibs.first=2026-02-01
    What is there:      rsp-hpc calibs list survey.yaml
    From then on:       rsp-hpc calibs certify flat survey.yaml --label 2026-02 --begin 2026-02-01 --end 2026-03-01
    What has changed:   rsp-hpc calibs compare run/calibs/flat-r/2026-01/D00.h5 run/calibs/flat-r/2026-02/D00.h5

    A product lies in LIBRARY/KIND-BAND/LABEL/DETECTOR.h5. LIBRARY is calibs in the output folder, or `calibration_library:` of
    the configuration, which several surveys may share. Visits find it by the date of the exposure: where a kind of a detector
    has certificates, one must cover the date; where it has none, what this survey built (its label) is valid for ever.
    """


@calibs.command("run", epilog=EXIT_CODES)
@_survey_options
@_guarded
def calibs_run(**options):
    """Build the kinds that `calibs.kinds` of CONFIG names, in order of dependency: bias, dark, flat, defects by default."""
    from .stages.run import run_stages

    return run_stages(_start(**options), ("calibs",))


@calibs.command("build", epilog=EXIT_CODES)
@click.argument("kind")
@_survey_options
@click.option("--label", default="", help="Name of the set, a folder in the library [calibs.label, or the survey's name].")
@_guarded
def calibs_build(kind, label, **options):
    """Build one KIND: bias, dark, flat, defects, ptc, linearity, crosstalk, charge-transfer (cti), brighter-fatter, fringe,
    sky or illumination. What it needs (a dark: the bias) must be there; --visit chooses the frames, as do calibs.first and
    calibs.last.
    """
    from .stages.library import kind_named
    from .stages.run import run_stages

    kind = kind_named(kind)
    options["changes"] = (*options["changes"], *([f"calibs.label={label}"] if label else []),
                          *([f"calibs.visits={list(options['visits'])}"] if options["visits"] else []))
    options["visits"] = ()
    return run_stages(_start(**options), (f"calibs {kind}",))


_WHERE = click.argument("where", type=click.Path(exists=True))
_OUTPUT = click.option("--output", type=click.Path(), help="Folder of the run, if it is not the configuration's.")


@calibs.command("list")
@_WHERE
@_OUTPUT
@click.option("--kind", default="", help="Only this kind.")
@_guarded
def calibs_list(where, output, kind):
    """List the products of WHERE, a configuration or a library folder: verdict, dates of the frames, inputs, validity."""
    from .stages.library import library_at, list_products

    lines, whole = list_products(library_at(where, output)[0], kind)
    click.echo("\n".join(lines))
    return EXIT_DONE if whole else EXIT_FAILURES


@calibs.command("certify")
@click.argument("kind")
@_WHERE
@_OUTPUT
@click.option("--begin", default="-inf", metavar="DATE", help="First date, YYYY-MM-DD[THH:MM:SS] (TAI) or MJD [ever].")
@click.option("--end", default="inf", metavar="DATE", help="The date from which on it is no longer valid [open end].")
@click.option("--label", default="", help="The set [the one that the configuration builds].")
@click.option("--band", "bands", multiple=True, help="Only this band.")
@click.option("--detector", "detectors", multiple=True, help="Only this detector.")
@click.option("--force", is_flag=True, help="Also what was judged bad.")
@click.option("--withdraw", "back", is_flag=True, help="Take certificates back instead.")
@_guarded
def calibs_certify(kind, where, output, label, bands, detectors, back, **how):
    """Say from when to when products of a KIND (or `all`) are valid: begin <= date of the exposure < end.

    Ranges of one kind, band and detector must not overlap. What was judged bad needs --force. All of the selection is
    certified, or nothing.
    """
    from .stages.library import certify, library_at, validity_of, withdraw

    library, label = library_at(where, output, label)
    if back:
        lines = withdraw(library, kind, label, (bands, detectors))
    else:
        lines = certify(library, kind, label, validity_of(how["begin"], how["end"]), how["force"], (bands, detectors))
    click.echo("\n".join(lines))
    return EXIT_DONE


@calibs.command("compare", epilog="Exit codes: 0 they agree; 3 they differ, or cannot be compared; 4 the command line is wrong.")
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.option("--output", type=click.Path(), help="FITS file for the difference map, FIRST less SECOND.")
@_guarded
def calibs_compare(first, second, output):
    """Say how two products of one kind differ, as numbers and a verdict: what a new set changes, before it is certified."""
    from .stages.library import compare_products

    lines, agree = compare_products(Path(first), Path(second), Path(output) if output else None)
    click.echo("\n".join(lines))
    return EXIT_DONE if agree else EXIT_FAILURES


@main.command(epilog=EXIT_CODES)
@click.option("--until", type=click.Choice(STAGES), default=STAGES[-1], help="The last stage to run [report].")
@_survey_options
@_guarded
def run(until, **options):
    """Run all stages in order inside one MPI job; the same command again does what is left."""
    from .stages.run import run_stages

    return run_stages(_start(**options), STAGES[:STAGES.index(until) + 1])


@main.command(epilog=EXIT_CODES)
@_survey_options
@_guarded
def simulate(**options):
    """Write a survey as raw files with truth, as the section `simulate:` of CONFIG says."""
    from .stages.simulate import simulate_survey

    return simulate_survey(_start(**options))


@main.command()
@click.argument("config", type=click.Path(), required=False)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one value.")
@_guarded
def config(config, changes):
    """Print the documented defaults; with CONFIG: check it and print what will be in effect."""
    from .config import documentation
    from .stages.survey import SurveyConfig, load_survey

    if config is None:
        click.echo(documentation(SurveyConfig))
        return
    import yaml

    click.echo(yaml.safe_dump(load_survey(Path(config), tuple(changes)).model_dump(mode="json"), sort_keys=False))


@main.group()
def refcat():
    """Reference catalogues: in shards by place on the sky, read only where they are needed."""


@refcat.command("build")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--output", required=True, type=click.Path(), help="Folder of the catalogue: `reference: {file: FOLDER}`.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE",
              help="What the columns mean, as in the section reference: ra=RA, bands={r: r_mag}. Gaia's are known.")
@click.option("--order", type=click.IntRange(0, 10), default=5, show_default=True, help="HEALPix order of the shards.")
@_guarded
def refcat_build(files, output, changes, order):
    """Make a sharded reference catalogue of FITS, Parquet or CSV tables."""
    from .config import build, changed
    from .io.refcat import ReferenceConfig, build_refcat

    made = build_refcat(files, output, build(ReferenceConfig, changed({}, changes), "reference"), order)
    click.echo(f"{output}: {len(made)} stars in {len(made.pixels)} shards, bands {', '.join(made.bands) or 'none'}")


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@_guarded
def show(files):
    """Print what is inside products (visit, coadd, objects, calibration files, survey.db)."""
    from .io.show import describe

    for name in files:
        click.echo(describe(Path(name)))


@main.command()
@click.argument("file", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--image", metavar="PATH", help="Image to export, e.g. detectors/S00 or r/12: FITS with IMAGE, MASK, VARIANCE.")
@click.option("--table", metavar="NAME", help="Table to export, e.g. sources or objects, as .fits or .parquet.")
@_guarded
def export(file, target, image, table):
    """Write an image or a table of FILE as FITS or Parquet TARGET, for ds9, TOPCAT or astropy."""
    from .io.export import export_image, export_table

    if bool(image) == bool(table):
        raise ConfigError("give one of --image PATH and --table NAME; `rsp-hpc show FILE` lists them")
    (export_image if image else export_table)(Path(file), image or table, Path(target))


if __name__ == "__main__":
    main()
