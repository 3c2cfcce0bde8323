"""The same computations on 1 to 8 virtual devices, for `devices_test.py`.

Run this as a program of its own, because a process has the devices that it started
with: ``python device_checks.py OUT.npz`` with eight of them.
"""

import functools
import pathlib
import runpy
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import data
from bitjax import lanes
from bitjax import quantizers
from bitjax import scans
from bitjax import searches
from bitjax import sweeps
from bitjax import training
from bitjax import transforms
from bitjax.scans import _report
from bitjax.studies.scaling import workload
from bitjax.sweeps import chunks
from bitjax.sweeps import meshes
from bitjax.training import _fit
from bitjax.training import _task
from tests.scans import residual_networks as networks
from tests.training import tiny

HERE = pathlib.Path(__file__).parent
RATES = np.linspace(0.0, 2.0, 12).astype(np.float32)


def view_of_a_layer():
  """A binary layer whose inputs are integers."""
  draw = np.random.default_rng(1)
  return scans.LayerView(
    inputs=jnp.asarray(draw.integers(0, 9, (8, 4)), jnp.float32),
    kernel=jnp.asarray(draw.normal(size=(4, 3)), jnp.float32),
    labels=jnp.asarray(draw.integers(0, 3, 8)),
    tail=(scans.Activation('relu'),),
    quantizer=quantizers.attach(quantizers.sign(), quantizers.identity()),
  )


def train(mesh, *optimizers):
  """The workload: 21 lanes of each optimiser, in blocks of 4."""
  sweep = sweeps.Sweep(chunk=4, mesh=mesh)
  return workload.run(
    workload.Config(optimizers=optimizers or ('adam',)), sweep
  )


def program(mesh):
  """Returns the program that the first chunk of a sweep names."""
  with tempfile.TemporaryDirectory() as folder:
    sweep = sweeps.Sweep(folder, chunk=2, mesh=mesh)
    workload.run(workload.Config(optimizers=('adam',)), sweep)
    path = sorted(pathlib.Path(folder).glob('chunks/*/0-0.*.npz'))[0]
    return chunks.header(path)['code']


def trainings():
  """Two networks on one device and on four, and the program for the four."""
  task, seeds = tiny.task(), (7, 3)
  mesh = meshes.make('lanes:2,batch:2')
  one = tiny.train(task, seeds=seeds, rates=(0.5, 1.0))
  four = tiny.train(task, seeds=seeds, rates=(0.5, 1.0), mesh=mesh)
  state = four.state
  spread = [len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)]
  feeds = [data.device_feed(tiny.dataset(), tiny.BATCH, s) for s in seeds]
  fed = _fit._fed(feeds, 0, tiny.CHUNK, tiny.CHUNK)
  run = _task.loop(task, feeds[0].take, len(seeds), mesh)
  program = run.lower(
    state,
    _fit._place(feeds[0].arrays, mesh),
    _fit._place(fed, mesh, 'lanes', None, 'batch'),
    tiny.CHUNK,
    None,
  )
  text = program.compile().as_text()
  found = {'all_reduces': text.count('all-reduce'), 'spread': min(spread)}
  # Inputs of the first layer: all images of a batch, or half of them.
  for size in (tiny.BATCH, tiny.BATCH // 2):
    found[f'rows_{size}'] = text.count(f'f32[{size},16]')
  # Batches of five examples, which two devices cannot share equally.
  batches = data.padded_batches(tiny.dataset(), 5)
  for where, fitted in ((None, one), (mesh, four)):
    evaluate = training.evaluator(task, len(seeds), where)
    scores = evaluate(training.variables_of(fitted.state), batches)
    fitted.history['odd_loss'] = np.asarray(scores.loss)
    fitted.history['odd_accuracy'] = np.asarray(scores.accuracy)
    fitted.history['odd_right'] = np.asarray(scores.right)
  for name, fitted in {'one': one, 'four': four}.items():
    leaves, _ = jax.tree.flatten_with_path(training.variables_of(fitted.state))
    found |= {
      f'{name}.{jax.tree_util.keystr(path)}': leaf for path, leaf in leaves
    }
    found |= {f'{name}.{k}': v for k, v in fitted.history.items()}
  return {f'fit.{name}': value for name, value in found.items()}


def budgets():
  """Transforms of sharded parameters equal those of whole ones, without a gather."""
  kinds = jax.sharding.AxisType
  rng = np.random.default_rng(0)
  params = {
    'a': np.float32(rng.normal(size=(16, 6))),
    'b': np.float32(rng.normal(size=8)),
  }
  # Rounded, so that there are ties.
  grads = jax.tree.map(
    lambda x: np.float32(np.round(3 * rng.normal(size=x.shape))), params
  )
  descents = {
    norm: optax.chain(
      transforms.steepest('l1' if norm == 'l1' else 'linf'),
      optax.sgd(1.5),
      transforms.project_budget(radius, norm),
    )
    for norm, radius in (('l2', 1), ('linf', 0.1), ('l1', 2), ('flips', 9))
  }
  latent = optax.chain(
    transforms.bop(0.5, 0.5),
    transforms.limit_flips(9),
    transforms.flip_ratio(),
    transforms.clip_latent(0.7),
  )
  cases = [(kind, 'latent', latent) for kind in (kinds.Auto, kinds.Explicit)]
  cases += [(kinds.Auto, norm, descents[norm]) for norm in ('l2', 'flips')]
  cases += [
    (kinds.Explicit, norm, descents[norm]) for norm in ('linf', 'l1', 'flips')
  ]
  for kind, norm, tx in cases:
    mesh = jax.make_mesh((4,), ('x',), axis_types=(kind,))
    sharding = jax.NamedSharding(mesh, jax.P('x'))

    @jax.jit
    def step(params, grads, tx=tx):
      state = tx.init(params)
      updates, _ = tx.update(grads, state, params)
      return optax.apply_updates(params, updates)

    want = step(params, grads)
    sharded = jax.device_put((params, grads), sharding)
    compiled = step.lower(*sharded).compile()
    got = compiled(*sharded)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
      assert x.sharding.is_equivalent_to(sharding, x.ndim), (norm, x.sharding)
    text = compiled.as_text()
    assert 'all-reduce' in text or norm == 'linf'
    assert 'all-gather' not in text and ' sort(' not in text, norm
    if norm != 'latent':
      anchor = tx.init(sharded[0])[2].anchor['a']
      assert anchor.sharding.is_equivalent_to(sharding, 2)


@_report.reports
@jax.jit
def twelve_steps(x, *, report):
  """A loop whose steps need all devices that hold ``x``."""

  def step(total, _):
    return total + jnp.sum(jnp.sin(x + total)), None

  return _report.scan(report, step, 0.0, None, 12)[0]


def reports():
  """Returns what a report hears where the first of several devices speaks for all."""
  mesh = meshes.make('lanes:4')
  shares = []
  lanes.each(
    lambda x: twelve_steps(x, report=shares.append),
    {'x': jnp.arange(8.0).reshape(4, 2)},
    mesh=mesh,
  )
  jax.effects_barrier()
  found = {'report.mesh': np.array(shares)}
  split = jax.device_put(
    jnp.arange(8.0), jax.NamedSharding(mesh, jax.P('lanes'))
  )
  shares.clear()
  twelve_steps(split, report=shares.append)
  found['report.split'] = np.array(shares)

  def fail(share):
    raise KeyError(share)

  try:
    twelve_steps(split, report=fail)
  except KeyError as error:
    found['report.raised'] = np.array(error.args)
  return found


def convolutions():
  """Gains of convolutions: plain, and with images or candidates on eight devices."""
  rng = np.random.default_rng(0)
  x, y = networks.images(1, 16, 4, 4)
  own, other = (networks.conv(rng, 4, 4) for _ in range(2))
  norm, classifier = networks.norm(rng, 4, 6.0), networks.dense(rng, 4, 10)
  ends = (scans.Mean(), classifier)
  tails = {
    'pooled': (norm, networks.HARDTANH, *ends),
    'masks': (norm, networks.SIGN, other, norm, *ends),
    'tail': (
      norm,
      networks.HARDTANH,
      scans.Residual((networks.SIGN, other, norm)),
      *ends,
    ),
  }
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ('parts',))
  found = {}
  for path, tail in tails.items():

    def of(x, y, places=None, path=path, tail=tail):
      view = networks.view_of((networks.SIGN, own), x, y, tail)
      return scans.flip_gains(view, path=path, coordinates=places)

    def mean(x, y, of=of):
      gains = of(x, y)
      sums = gains.gains, gains.second_moments, gains.loss
      return jax.lax.pmean(sums, 'parts')

    def some(x, y, places, of=of):
      gains = of(x, y, places)
      return gains.gains, gains.second_moments, gains.loss[None]

    plain = jax.jit(of)(x, y)
    split = jax.P('parts')
    images = jax.device_put((x, y), jax.NamedSharding(mesh, split))
    options = {'mesh': mesh, 'check_vma': False}
    by_images = jax.shard_map(
      mean, in_specs=(split, split), out_specs=jax.P(), **options
    )
    by_places = jax.shard_map(
      some, in_specs=(jax.P(), jax.P(), split), out_specs=split, **options
    )
    auto = jax.jit(of)(*images)
    ways = {
      'plain': (plain.gains, plain.second_moments, plain.loss),
      'auto': (auto.gains, auto.second_moments, auto.loss),
      'images': jax.jit(by_images)(*images),
      'places': jax.jit(by_places)(x, y, jnp.arange(own.layer.kernel.size)),
    }
    for way, values in ways.items():
      for name, value in zip(('gains', 'squares', 'loss'), values, strict=True):
        found[f'conv.{path}.{way}.{name}'] = np.ravel(value)
  return found


def main(out):
  jax.config.update('jax_disable_most_optimizations', True)
  with jax.numpy_rank_promotion('raise'):
    runpy.run_path(str(HERE / 'quantizers' / 'everything_test.py'))[
      'compare_sharded'
    ]()
  found = trainings()
  jax.config.update('jax_disable_most_optimizations', False)
  budgets()

  def keep(name, results):
    for variable in results.data_vars:
      found[f'{name}.{variable}'] = results[variable].values

  keep('sweep.1', train(None, 'sgd', 'adam'))
  keep('sweep.2', train(meshes.make('lanes:2'), 'sgd', 'adam'))
  keep('sweep.4', train(meshes.make('lanes:4')))
  keep('sweep.8', train(meshes.make('lanes:8')))
  spread = [meshes.make(spec) for spec in ('lanes:2', 'lanes:8')]
  found['programs'] = len({program(mesh) for mesh in (None, *spread)})
  keep('batch.2', train(meshes.make('lanes:2,batch:2')))

  def nested(a, b, data):
    def inner(c):
      return jnp.cumsum(a * data + b * c)

    return {'curve': jax.vmap(inner)(jnp.arange(3.0)), 'key': a + b}

  axes = {'a': np.float32([1, 2, 3]), 'b': np.float32([0.5, 0.25, 0.1, 7])}
  shared, mesh = {'data': jnp.arange(4.0)}, meshes.make('lanes:5')
  for name, where in {'mesh': mesh, 'plain': None}.items():
    grid = functools.partial(lanes.grid, nested, width=2, mesh=where)
    for how, call in {'jit': jax.jit(grid), 'eager': grid}.items():
      got = call(axes, shared=shared)
      found |= {f'grid.{name}.{how}.{k}': value for k, value in got.items()}

  view, mesh = view_of_a_layer(), meshes.make('lanes:4')
  direction = jax.grad(view.loss)(view.kernel)

  @jax.jit
  def scan(view, direction):
    def some(places, rates, view, direction):
      gains = scans.flip_gains(view, coordinates=places).gains
      return gains, scans.line_scan(view, direction, rates).losses

    blocks = {
      'places': jnp.arange(view.kernel.size).reshape(-1, 2),
      'rates': RATES.reshape(-1, 2),
    }
    shared = {'view': view, 'direction': direction}
    split = lanes.each(some, blocks, shared=shared, mesh=mesh)
    whole = scans.line_scan(view, direction, RATES, path='brute_force').losses
    plain = scans.flip_gains(view, path='brute_force').gains, whole
    return [leaf.reshape(-1) for leaf in (*split, *plain)]

  names = 'gains.mesh', 'losses.mesh', 'gains.plain', 'losses.plain'
  found |= dict(zip(names, scan(view, direction), strict=True))
  start = searches.genetic_start(view, jax.random.key(2), 3, num_flips=4)
  for name, where in (('mesh', mesh), ('plain', None)):
    end, lowest = searches.evolve(view, start, 3, num_children=6, mesh=where)
    found |= {
      f'evolve.{name}.lowest': lowest,
      f'evolve.{name}.masks': end.masks,
    }
  found |= reports()
  found |= convolutions()
  np.savez(out, **{name: np.asarray(value) for name, value in found.items()})


if __name__ == '__main__':
  main(sys.argv[1])
