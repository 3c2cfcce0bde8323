"""The items of the note: what each asks, and which verdict answers it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ['ITEMS', 'Item']


class Item(NamedTuple):
  """An item of the note.

  Attributes:
    label: its label, ``'N1'`` to ``'N20'``.
    question: what it asks, in one sentence that needs no other.
    study: the study that answers it; '' if there is none yet.
    finding: label of the verdict that answers it; '' if no verdict is needed.
    where: how the verdict's claim begins, if several have the label.
    yes: the answer if the verdict is 'supported', or if none is needed.
    no: the answer if it is 'contradicted'.
    unsettled: the answer if it is 'inconclusive', where there is more to say.
  """

  label: str
  question: str
  study: str = ''
  finding: str = ''
  where: str = ''
  yes: str = ''
  no: str = ''
  unsettled: str = 'Not settled: the interval allows more than one answer.'


ITEMS = (
  Item(
    'N1',
    'Is a budget of weight flips better spent in several rounds, all flips being '
    'scored again before each, than in one?',
    'discrete_gradient',
    'N1 rounds',
    'l2:0.1, first layer, initialised',
    'Yes: several rounds reach a lower loss on the searched batch.',
    'No: several rounds reach a higher loss on the searched batch.',
  ),
  Item(
    'N2',
    'Do all methods move the same layer inside the same ball?',
    'discrete_gradient',
    yes='Yes: one layer is scanned, and every method is held to one ball.',
  ),
  Item(
    'N3',
    'Is the discrete gradient (every single flip tried, the best taken) a bound on '
    'what one step of the straight-through estimator (STE) can reach, in an l2 ball?',
    'discrete_gradient',
    'N3 bound',
    'l2:0.1, first layer, initialised',
    'Yes: on average no step of STE reaches a lower loss on the searched batch.',
    'No: on average one step of STE reaches a lower loss, on the searched batch too.',
  ),
  Item(
    'N3, linf',
    'Is it a bound on a step along the gradient in an linf ball, where all flips within '
    'reach are made?',
    'discrete_gradient',
    'N3 bound',
    'linf:0.002, first layer, initialised',
    'Yes: on average no step along the gradient reaches a lower loss there.',
    'No: on average a step along the gradient reaches a lower loss there too.',
  ),
  Item(
    'N4',
    'Do a full-precision and a binary network behave alike?',
    'multistep_ste',
    'N9 interaction',
    '',
    'Yes: both gain as much from several steps, within the margin.',
    'No: their gains from several steps differ by more than the margin.',
  ),
  Item(
    'N5',
    'Is one step compared at its best of 10 000 learning rates?',
    'multistep_ste',
    yes='Yes: one exact scan gives the loss at all of them.',
  ),
  Item(
    'N6',
    'Do several steps, each clipped weight by weight, beat one normalised step?',
    'multistep_ste',
    'N6',
    'binary',
    'Yes, but the balls are unequal: the clip lets far more weights change sign.',
    'No.',
  ),
  Item(
    'N7',
    'Does noise on the start lower the loss that several steps reach?',
    'multistep_ste',
    'N9 noise, mean',
    'binary',
    'Yes, on average over the draws.',
    'No: on average it raises the loss.',
  ),
  Item(
    'N8',
    'Do several steps of STE beat one step at the best scanned rate, in one ball?',
    'multistep_ste',
    'N8',
    'binary',
    'Yes: several steps reach a lower loss on data that neither has seen.',
    'No: one scanned step reaches a lower loss on data that neither has seen.',
  ),
  Item(
    'N9',
    'Are SGD with and without momentum equally good in the ball?',
    'multistep_ste',
    'N9 momentum',
    'binary',
    'Yes, within the margin.',
    'No, they differ by more than the margin.',
  ),
  Item(
    'N10',
    'Does the variance over seeds fall with a larger batch?',
    'multistep_ste',
    'N10 batch, variance',
    'binary',
    'Yes.',
    'No, it rises.',
  ),
  Item(
    'N11',
    'Is one step of STE as good with the narrow window 0.5 as with the usual 1?',
    'variant_ste',
    'N11',
    'initialised, first layer',
    'Yes, within the margin.',
    'No: the two differ by more than the margin.',
  ),
  Item(
    'N12',
    'Does a narrower window make the gradient more alike from batch to batch?',
    'variant_ste',
    'N12',
    'initialised, first layer',
    'Yes.',
    'No: it becomes less alike.',
  ),
  Item(
    'N12, ResNet',
    'Does a narrower window make the gradient of a trained ResNet more alike from batch '
    'to batch?',
    'resnet_windows',
    'N12, resnet8_narrow, trained',
    '',
    'Yes.',
    'No: it becomes less alike.',
  ),
  Item(
    'N13',
    'Does a soft staircase that hardens during training (DSQ) train a network of '
    'one-bit weights better than a fixed one?',
    'dsq',
    'N13, 1 bit',
    '',
    'Yes.',
    'No, it trains worse.',
  ),
  Item(
    'N14',
    'At equal total bits of the weights, do many one-bit weights reach a lower training '
    'loss than few of four bits?',
    'bits_vs_width',
    'N14 equal total bits',
    '',
    'Yes.',
    'No: few weights of four bits reach a lower one.',
  ),
  Item(
    'N14, bits or units',
    'Is it more total bits that help, or more weights: does a doubling lower the loss '
    'more as weights than as bits of each weight?',
    'bits_vs_width',
    'N14 bits or units',
    '',
    'Yes, more weights help more.',
    'No, more bits of each weight help more.',
  ),
  Item(
    'N14, capacity',
    'Do networks of one bit fit random labels worse than those of four bits with as many '
    'bits in all?',
    'bits_vs_width',
    'N14 capacity, equal total bits',
    '',
    'Yes.',
    'No, they fit them better.',
  ),
  Item(
    'N14, optimisation',
    'Do they end above what the same network reaches from a projected full-precision one?',
    'bits_vs_width',
    'N14 optimisation',
    '',
    'Yes: there are better solutions, which training from random weights does not find.',
    'No: from random weights they end lower.',
  ),
  Item(
    'N14, generalisation',
    'Do wider networks of one bit overfit more?',
    'bits_vs_width',
    'N14 generalisation, 1 bit',
    '',
    'Yes: training exceeds test accuracy by more.',
    'No: training exceeds test accuracy by less.',
  ),
  Item(
    'N15',
    'Does training end where single flips of weights still improve the network?',
    'local_optima',
    'N15 descent, held-out',
    'normal',
    'Yes: flips chosen on the training loss improve the held-out loss as well.',
    'No: flips chosen on the training loss raise the held-out loss.',
  ),
  Item(
    'N15, gradient',
    'Is the gradient of STE wrong enough to be the cause: do flips still help after a '
    'long training with a falling rate, where they do not in full precision? Full '
    'precision is part of the small study only.',
    'local_optima',
    'N15 gradient, held-out',
    'normal',
    'Yes, on held-out data.',
    'No, not on held-out data.',
    'Not settled: flips still help, but as many moves in full precision are not shown to '
    'leave the loss as it is.',
  ),
  Item(
    'N16',
    'Do random flips, followed by a new descent, lead to better networks? In the large '
    'study the first descent is cut off.',
    'local_optima',
    'N16 escape, held-out, 64 flips',
    'normal',
    'Yes, on held-out data too.',
    'No, they lead to worse ones.',
  ),
  Item(
    'N16, ADMM',
    'Started from a checkpoint of STE, does ADMM end better than STE that goes on?',
    'discrete_optimisers',
    'N16 ADMM',
    '',
    'Yes, on held-out data, after as many updates.',
    'No: continued STE has the lower held-out loss after as many updates.',
  ),
  Item(
    'N16, dimension',
    'Is a genetic algorithm, from some number of signs on, no better than random flips?',
    'discrete_optimisers',
    'N16 dimension, A, checkpoint',
    '',
    'Yes: there is such a number within what was studied.',
    'No: it is better at every number that was studied.',
  ),
  Item(
    'N16, initialisation',
    "Does any other initialisation than Kaiming's lead to a better binary network?",
    'initialisation',
    'N16 initialisation, better',
    '',
    'Yes: at least one ends more accurate.',
    'No: none ends more accurate, and some end less.',
  ),
  Item(
    'N16, classifier',
    'Does it help if the classifier begins with smaller weights?',
    'initialisation',
    'N16 classifier',
    '',
    'Yes: it ends more accurate.',
    'No: it ends less accurate.',
  ),
  Item(
    'N17',
    'At equal energy of an image, is a wide network of one bit more accurate than a narrow '
    'one of four bits?',
    'hardware',
    'N17 equal energy',
    '',
    'Yes.',
    'No: that of four bits is more accurate.',
  ),
  Item(
    'N17, operations',
    'Does the number of operations say which of two networks takes more energy?',
    'hardware',
    'N17 operations',
    '',
    'Yes, for all pairs that the model of energy can tell apart.',
    'No: some pairs of equally many operations, or more, take less.',
  ),
  Item(
    'N17, shortcuts',
    'Do shortcuts of 32 bits take most of the energy of a binary ResNet?',
    'hardware',
    'N17 shortcuts',
    '',
    'Yes, where there is one around every convolution.',
    'No.',
  ),
  Item(
    'N18',
    'Started from full precision, does a ResNet train as well with the fixed window 1/2 '
    'as with the usual 1?',
    'resnet_windows',
    'N18',
    '',
    'Yes, within half a point of accuracy.',
    'No: the two differ by more than half a point of accuracy.',
  ),
  Item(
    'N18, one step',
    'Does one step of the trained ResNet lower the loss as far with window 1/2 as with 1?',
    'resnet_windows',
    'N18 one step, resnet8_narrow, trained',
    '',
    'Yes, within half a percent of the loss.',
    'No: the two differ by more than half a percent of the loss.',
  ),
  Item(
    'N18, nearness',
    'Does a gradient that is nearer to exact gains of flips lead to a more accurate ResNet?',
    'resnet_windows',
    'N18 predicts accuracy: nearness, B, pretrained',
    '',
    'Yes: over estimators the two are ranked alike.',
    'No: over estimators the two are ranked in opposite order.',
  ),
  Item(
    'N19',
    'Is a binary network better if it starts from full precision than from scratch, '
    'after as many epochs in all?',
    'pretrain_vs_scratch',
    'N19, W1A1, no mixup',
    '',
    'Yes: the start from full precision ends more accurate.',
    'No: the start from scratch ends more accurate.',
  ),
  Item(
    'N19, mixup',
    'Does mixup make the start from full precision more of an advantage?',
    'pretrain_vs_scratch',
    'N19 interaction, W1A1, mixup 1',
    '',
    'Yes: it gains more with mixup than without.',
    'No: it gains less with mixup than without.',
  ),
  Item(
    'N20',
    'Which parts of super-resolution networks do not suit low bits? Shortcuts: is one '
    'around every convolution better than one a block, in one bit?',
    'super_resolution',
    'N20 shortcuts',
    '',
    'Yes: by more than the margin.',
    'No: one a block is better.',
  ),
  Item(
    'N20, head and tail',
    'Do head and tail have to stay in full precision?',
    'super_resolution',
    'N20 part, 1 bit with head and tail',
    '',
    'Yes: one bit there costs more than the margin.',
    'No: one bit there is better.',
  ),
  Item(
    'N20, upsampler',
    'Does the upsampler have to stay in full precision?',
    'super_resolution',
    'N20 part, 1 bit with upsampler',
    '',
    'Yes: one bit there costs more than the margin.',
    'No: one bit there is better.',
  ),
)
