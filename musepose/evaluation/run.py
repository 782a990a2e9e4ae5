"""Runs evaluate.py --pairs: check, compare, report."""

from pathlib import Path

from musepose.evaluation.options import PairOptions
from musepose.evaluation.pairs import LIST_SUFFIXES, Instruments, check_pairs, compare, find_pairs
from musepose.evaluation.report import pair_table, save_json, summary
from musepose.pose.detectors.choice import detector_files
from musepose.pose.options import DETECTORS
from musepose.utils.paths import refuse_inputs


def run_pairs(options: PairOptions) -> int:
    """Print each pair's metrics and their means, and write them to `options.json`. → exit status.

    Raises UserError for an unsuitable video or network, before any comparison.
    """
    pairs = check_pairs(find_pairs(options.pairs), options.frames, options.truth_step, options.resize)
    listed = [Path(path) for path in options.pairs if Path(path).suffix.lower() in LIST_SUFFIXES]
    videos = [video.path for pair in pairs for video in (pair.result, pair.truth)]
    files = [file for name in DETECTORS for file in detector_files(options, name)]
    refuse_inputs([options.json], [*listed, *videos, options.lpips, options.fvd, *files])
    instruments = load_instruments(options)
    if instruments.fvd:
        instruments.fvd.check(pair.frames for pair in pairs)
    rows = []
    for number, pair in enumerate(pairs, 1):
        print(f"[{number}/{len(pairs)}] {pair.result.path}: {pair.frames} frames", flush=True)
        for line in pair.notes:
            print(line, flush=True)
        rows.append(compare(pair, instruments))
    means = summary(rows, instruments.fvd.distance() if instruments.fvd else None)
    print(f"\n{pair_table(rows, means)}")
    if options.json:
        save_json(options.json, {"pairs": rows, "all": means})
        print(f"\nwrote {options.json}")
    return 0


def load_instruments(options: PairOptions) -> Instruments:
    """Load the requested networks. Imports torch only if there are any."""
    if not (options.poses or options.lpips or options.fvd):
        return Instruments()
    from musepose.evaluation.networks import Fvd, Lpips
    from musepose.utils.device import choose_device

    device = choose_device(options.device)
    lpips = Lpips(options.lpips, device) if options.lpips else None
    fvd = Fvd(options.fvd, device, options.fvd_frames) if options.fvd else None
    detector = None
    if options.poses:
        from musepose.pose.detectors.choice import check_detector_files, load_chosen

        check_detector_files(options)
        detector = load_chosen(options, str(device))
    return Instruments(lpips, fvd, detector)
