"""Enlarges images by a trained network of a run, or shows what all its networks make of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bitjax import cli
from bitjax import data
from bitjax import files
from bitjax import measures
from bitjax import process
from bitjax import training
from bitjax import types
from bitjax.cli import results
from bitjax.commands import options as options_lib
from bitjax.commands import trained
from bitjax.data import pictures
from bitjax.evidence import plots
from bitjax.studies.super_resolution import crops
from bitjax.studies.super_resolution import study
from bitjax.studies.train_superres import config as config_lib
from bitjax.sweeps import hosted
from bitjax.sweeps import progress

__all__ = ['Network', 'compare', 'enlarge', 'find', 'main']

_USAGE = """bitjax super_resolve RUN IMAGE... --out=DIR [--arm=NAME] [--seed=N]
                   [--which=latest|best] [--scale=N] [--tile=128]
                   [--crop=ROW,COLUMN,SIDE]

Enlarges PNG or JPEG images of any size by a trained network of a run of super_resolution
or train_superres, finished or not, and writes DIR/NAME_x2.png. RUN may be a checkpoint of
the run, RUN/lanes/trainings/1-0 for example. A run of several networks needs --arm. Tiles
bound the memory; they overlap, so that they change nothing (but where the range of
activations is that of the batch, which is then a tile). --scale only says what is
expected.

With --crop the images are the truth: each is made smaller first, then enlarged by bicubic
resampling and by every network of one seed. DIR/NAME_crops.png and .pdf show a square of
SIDE pixels from (ROW, COLUMN) on, with the PSNR of the whole image under each."""

_TILE = 128


class Network(NamedTuple):
  """A trained network.

  Attributes:
    arm: its name in the study, or what is quantized.
    model: the network.
    variables: its variables.
  """

  arm: str
  model: Any
  variables: types.PyTree


def find(
  place: str | os.PathLike[str],
  labels: Mapping[str, str],
  *,
  which: str = 'latest',
  every: bool = False,
) -> list[Network]:
  """Returns a trained network of a run, or one of every arm.

  Args:
    place: directory of the run, or of a checkpoint in it.
    labels: ``arm`` and ``seed``, or those that are needed to tell networks apart.
    which: the checkpoint, ``'latest'`` or ``'best'`` on validation images.
    every: whether to return all arms of a seed, in the order of the run.

  Raises:
    BadInput: if this is no run of such networks, or has no such one, or several.
  """
  types.check_choice('which', which, training.KEPT)
  run, below = _run(files.expand(place))
  kinds = study.Config, config_lib.Config
  _, config, _ = trained.opened(run, kinds)
  found = [
    one
    for one in trained.kept(run, which)
    if below is None or one.folder.resolve() == below
  ]
  arms = [None]
  if every and isinstance(config, study.Config):
    there = {one.static.get('arm') for one in found}
    arms = [arm for arm in config.arms if arm in there] or [None]
  networks = []
  for arm in arms:
    wanted = dict(labels) | ({} if arm is None else {'arm': arm})
    tested = [one for one in found if one.labels['seed'] in config.seeds]
    one = trained.chosen(run, tested or found, wanted, config.seeds)
    model = config.model(**one.static)
    trained.check_described(one, training.describe(model))
    variables = training.load_variables(one.folder, which=which, seed=one.index)
    arm = one.static['arm'] if one.static else config.shown()
    networks.append(Network(arm, model, variables))
  return networks


def enlarge(
  network: Network, image: np.ndarray, tile: int = _TILE, name: str = ''
) -> np.ndarray:
  """Enlarges an image in tiles, with a progress bar on standard error.

  Args:
    network: the network.
    image: uint8 [h, w, 3].
    tile: height and width of a tile.
    name: what the bar says; '' for no bar.

  Returns:
    uint8 [scale h, scale w, 3].
  """
  work = progress.Work(name, bool(name))
  try:
    return training.enlarge(
      network.model,
      network.variables,
      image,
      tile=tile,
      overlap=_reach(network.model),
      report=work,
    )
  finally:
    work.close()


def compare(
  networks: Sequence[Network],
  image: np.ndarray,
  place: tuple[int, int, int],
  name: str = 'image',
  tile: int = _TILE,
) -> list[crops.Crop]:
  """Returns crops of an image, made smaller and enlarged again, and of the truth.

  Args:
    networks: trained networks for one scale.
    image: the truth, uint8 [H, W, 3].
    place: first row, first column, and side of the crop.
    name: what messages call the image.
    tile: height and width of a tile at low resolution.

  Raises:
    BadInput: for a crop that is not inside the image, or an image of which nothing is
      within a border of the scale.
  """
  scale = networks[0].model.scale
  _check_crop(image, place, scale, name)
  pair = data.make_pairs({name: image}, scale)[0]
  truth = jnp.asarray(pair.high)
  row, column, side = place

  def cut(name, pixels, *, measured=True):
    psnr = None
    if measured:
      found = measures.psnr(jnp.asarray(pixels), truth, border=scale)
      psnr = float(found)
    part = pixels[row : row + side, column : column + side]
    return crops.Crop(name, part, psnr)

  return [
    cut('bicubic', data.bicubic_on_host(pair.low, scale)),
    *(
      cut(one.arm, enlarge(one, pair.low, tile, f'super_resolve ({one.arm})'))
      for one in networks
    ),
    cut('truth', pair.high, measured=False),
  ]


def main(argv: Sequence[str]) -> int:
  """Enlarges images; returns the exit status."""
  if list(argv) in ([], ['--help'], ['-h']):
    return cli.status.usage(_USAGE, argv)
  places, options = options_lib.parse(argv)
  known = ('out', 'arm', 'seed', 'which', 'scale', 'tile', 'crop')
  options_lib.check(options, known)
  if len(places) < 2 or 'out' not in options:
    return cli.status.usage(_USAGE, argv)
  run, *paths = places
  out, tile = files.expand(options['out']), _integer(options, 'tile', _TILE)
  place = _square(options['crop']) if 'crop' in options else None
  labels = {k: v for k, v in options.items() if k in ('arm', 'seed')}
  networks = find(
    run,
    labels,
    which=options.get('which', 'latest'),
    every=place is not None and 'arm' not in options,
  )
  scale, reach = networks[0].model.scale, _reach(networks[0].model)
  if _integer(options, 'scale', scale) != scale:
    raise types.BadInput(
      f'{run} was trained for the scale {scale}; got --scale={options["scale"]}.'
    )
  if tile <= 2 * reach:
    raise types.BadInput(
      f'--tile must be more than {2 * reach} for this network; got {tile}.'
    )
  end = f'_x{scale}.png' if place is None else '_crops.png'
  targets = [out / f'{pathlib.Path(path).stem}{end}' for path in paths]
  _check_targets(out, paths, targets)
  images = [pictures.read(files.expand(path)) for path in paths]
  if place is not None:
    for path, image in zip(paths, images, strict=True):
      _check_crop(image, place, scale, path)
  contents: list[tuple[pathlib.Path, Any]] = []
  for path, target, image in zip(paths, targets, images, strict=True):
    if place is None:
      contents.append((target, enlarge(networks[0], image, tile, target.name)))
      continue
    with plots.style():
      shown = compare(networks, image, place, path, tile)
      drawn = crops.draw(shown, pathlib.Path(path).stem)
      for kind, content in results.draw(drawn).items():
        contents.append((target.with_suffix(f'.{kind}'), content))
  out.mkdir(parents=True, exist_ok=True)
  for path, content in contents:
    if isinstance(content, bytes):
      files.write_bytes(path, content)
    else:
      pictures.write(path, content)
    process.write(f'{path}\n')
  return 0


def _run(place: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
  """Returns the directory of a run, and that of the checkpoint if it is one."""
  lanes = place.parent.parent
  if (
    lanes.name == hosted.FOLDER and (lanes.parent / cli.rundir.CONFIG).is_file()
  ):
    return lanes.parent, place.resolve()
  return place, None


def _reach(model: Any) -> int:
  """Returns how many pixels of its input a network sees beyond an output, at most."""
  return (
    2 * model.blocks + 6
  )  # Head, body, upsamplers and tail; bicubic sees 2.


def _integer(options: Mapping[str, str], name: str, default: int) -> int:
  text = options.get(name, str(default))
  if not re.fullmatch(r'[0-9]{1,6}', text):
    raise types.BadInput(f'--{name} must be an integer; got {text}.')
  return int(text)


def _square(text: str) -> tuple[int, int, int]:
  if not re.fullmatch(r'[0-9]{1,6},[0-9]{1,6},[0-9]{1,6}', text):
    raise types.BadInput(
      f'--crop must be ROW,COLUMN,SIDE, three integers; got {text}.'
    )
  row, column, side = map(int, text.split(','))
  return row, column, side


def _check_crop(image, place, scale, name):
  """Refuses a crop that is not inside the image, as far as the scale divides it."""
  row, column, side = place
  if min(image.shape[:2]) < 3 * scale:
    raise types.BadInput(
      f'{name}: expected an image of {3 * scale} pixels or more on a side, of which '
      f'{scale} at each edge are not measured; found {image.shape[0]} x '
      f'{image.shape[1]}.'
    )
  height, width = (length // scale * scale for length in image.shape[:2])
  if side < 1 or row + side > height or column + side > width:
    raise types.BadInput(
      f'{name}: --crop must be a square inside of {height} x {width} pixels; got '
      f'{row},{column},{side}.'
    )


def _check_targets(out, paths, targets):
  """Refuses what could not be written, or would replace an image, before any work."""
  home = next(path for path in (out, *out.absolute().parents) if path.exists())
  if not home.is_dir():
    raise types.BadInput(f'--out={out} must be a folder; {home} is a file.')
  if not os.access(home, os.W_OK | os.X_OK):
    raise types.BadInput(f'--out={out} cannot be written: {home} is read-only.')
  for one, other in itertools.combinations(range(len(targets)), 2):
    if targets[one] == targets[other]:
      raise types.BadInput(
        f'{paths[one]} and {paths[other]} would both be written to {targets[one]}; '
        'enlarge them into different folders.'
      )
  given = {files.expand(path).resolve(): path for path in paths}
  for target in targets:
    if target.resolve() in given:
      raise types.BadInput(
        f'{target} would replace {given[target.resolve()]}; choose another --out.'
      )
